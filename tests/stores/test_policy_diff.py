"""What changed between two policies is told in lines that people can read, and without secrets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.stores.policy_diff import diff_policies
from tests.stores.policy_texts import BASE, CONTRACT, build


def changes(old: str, new: str, **env: str) -> list[str]:
    return diff_policies(build(old, env), build(new, env))


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("tier: 4", "tier: 5", "model large: tier 4 -> 5"),
        ("max_cost_usd: 0.30", "max_cost_usd: 0.25", "model large: budget.max_cost $0.3 -> $0.25"),
        ("max_cost_usd: 0.30", "max_cost_usd: 0", "model large: budget.max_cost $0.3 -> none"),
        ("hard_timeout_secs: 600", "hard_timeout_secs: 9", "model large: budget.hard_timeout_s 600.0 -> 9.0"),
        ("{provider: b, upstream_model: large", "{provider: a, upstream_model: large", "model large: provider b -> a"),
        ("max_cost_usd: 1.00", "max_cost_usd: 2", "caps.task $1 -> $2"),
        ("task: {max_cost_usd: 1.00}", "global: {day: {max_cost_usd: 2}}", "caps.everyone.day none -> $2"),
        ("[small-b, large]}", "[large]}", "route auto: fallback -small-b"),
        ("[small, small-b, large]", "[small, large]", "route auto: candidates -small-b"),
        ("[small-b, large]}", "[large, small-b]}", "route auto: fallback reordered: large, small-b"),
        ("adequacy: 0.8", "adequacy: 0.9", "route auto: adequacy 0.8 -> 0.9"),
        (
            "adequacy: 0.8",
            "objective: quality, max_expected_cost_usd: 0.01",
            "route auto: objective cheapest_adequate -> quality",
        ),
        (
            "adequacy: 0.8",
            "objective: quality, max_expected_cost_usd: 0.01",
            "route auto: max_expected none -> $0.01",
        ),
        ("tier: 4", "like: gpt-4o", "model large: like none -> gpt-4o"),
        ("adequacy: 0.8", "pin: large", "route auto: pin none -> large"),
        ("adequacy: 0.8", "pin: {code: large, math: small}", "route auto: pin none -> code: large, math: small"),
        ("adequacy: 0.8", "router: heuristic", "route auto: router none -> heuristic"),
        (
            "adequacy: 0.8",
            "split: {learned: 0.9, heuristic: 0.1}",
            "route auto: split none -> learned: 0.9, heuristic: 0.1",
        ),
        ("keys: []", "on_cut: length", "on_cut error -> length"),
        ("keys: []", "aliases: {claude-*: auto, gpt-5: large}", "aliases none -> claude-*: auto, gpt-5: large"),
        ("keys: []", "cache: {ttl_secs: 60}", "cache_s none -> 60.0"),
        ("keys: []", "stored_responses: {max_mb: 1}", "stored_responses.ttl_s none -> 2592000.0"),
        ("keys: []", "notices: {webhook: 'http://h/s'}", "notices.at none -> 0.8, 1"),
        ("keys: []", "notices: {webhook: 'http://h/s'}", "notices.webhook set"),
        ("keys: []", "unknown_model: auto", "unknown_model none -> auto"),
        ("keys: []", "ledger: {on_failure: open}", "ledger.on_failure closed -> open"),
        ("keys: []", "keys: [{name: ci, sha256: '" + "a" * 64 + "'}]", "key ci: added"),
        ("  auto:", "  best: {candidates: [small]}\n  auto:", "route best: added"),
        ("keys: []", "teams: {lab: {}}", "team lab: added"),
        ("task: {max_cost_usd: 1.00}", "team: {day: {max_cost_usd: 2}}", "caps.team.day none -> $2"),
        ("9001/v1", "9009/v1", "provider a: base_url http://127.0.0.1:9001/v1 -> http://127.0.0.1:9009/v1"),
        (
            "output_per_1k: 0.0004}",
            "output_per_1k: 0.0005, cache_read_per_1k: 0}",
            "model small: price.base input $0.1, output $0.4 per million -> "
            "input $0.1, output $0.5, cache_read $0 per million",
        ),
        (
            "output_per_1k: 0.075}",
            "output_per_1k: 0.075, tiers: [{above_tokens: 9, input_per_1k: 1, output_per_1k: 2}]}",
            "model large: price.tiers none -> above 9 tokens input $1000, output $2000 per million",
        ),
    ],
)
def test_each_change_is_one_line(before: str, after: str, line: str) -> None:
    assert before in CONTRACT
    assert line in changes(CONTRACT, CONTRACT.replace(before, after, 1))


def test_a_model_at_several_providers_is_told_once_and_where_it_costs_something_else() -> None:
    """Whatever else changes there: its other places were told as tiers of a price, and no such edit was ever taken."""
    one = CONTRACT.replace("tier: 4, ", "tier: 4, also_at: [a], ")
    assert changes(CONTRACT, one) == ["model large: also_at +a"]
    assert changes(one, CONTRACT) == ["model large: also_at -a"]
    assert changes(one, one.replace("max_cost_usd: 0.30", "max_cost_usd: 0.25")) == [
        "model large: budget.max_cost $0.3 -> $0.25"
    ]
    here = BASE.replace(
        "models:", "  q: {base_url: 'http://q.test/v1', free: true}\nmodels:\n  gpt-4o-mini: {provider: p}", 1
    )
    told = changes(here, here.replace("{provider: p}", "{provider: p, also_at: [q]}", 1))
    assert told == [
        "model gpt-4o-mini: also_at +q",
        "model gpt-4o-mini: price at q none -> input $0, output $0 per million",
    ]


def test_what_is_added_is_removed_the_other_way_round() -> None:
    more = CONTRACT.replace("  auto:", "  best: {candidates: [small]}\n  auto:")
    assert changes(CONTRACT, more) == ["route best: added"]
    assert changes(more, CONTRACT) == ["route best: removed"]


def test_comments_and_spelling_are_no_change() -> None:
    assert changes(CONTRACT, "# hello\n" + CONTRACT.replace("1.00", "1")) == []


def test_a_providers_change_is_told_once_and_its_secrets_never() -> None:
    def with_provider(fields: str) -> str:
        return BASE.replace("http://p.test/v1", f'http://p.test/v1", {fields}, catalogue_prefixes: ["').replace(
            ', catalogue_prefixes: [""}', "}"
        )

    old = with_provider("api_key: sk-secret-1, headers: {X-Key: sk-secret-1}")
    new = with_provider("api_key: sk-secret-2, headers: {X-Key: sk-secret-2}")
    assert changes(old, new) == ["provider p: api_key changed", "provider p: headers changed"]
    assert "provider p: api_key removed" in changes(old, BASE)
    assert "provider p: api_key set" in changes(BASE, new)
    assert "secret" not in " ".join(changes(old, new) + changes(old, BASE) + changes(BASE, new))


def test_a_keys_new_hash_is_told_without_the_hash() -> None:
    old, new = (BASE + f"keys: [{{name: ci, sha256: '{letter * 64}'}}]\n" for letter in "ab")
    assert changes(old, new) == ["key ci: sha256 changed"]
    rotated = new.replace("}]", f", former_sha256: '{'a' * 64}'}}]")
    assert changes(old, rotated) == ["key ci: sha256 changed", "key ci: former_sha256 set"]


def test_new_prices_are_a_change() -> None:
    policy = build(BASE)
    assert diff_policies(policy, replace(policy, prices_version="new")) == [
        f"price catalogue: {policy.prices_version} -> new"
    ]
