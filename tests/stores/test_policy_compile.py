"""From dollars and names to the compiled policy: defaults, prices, budgets, tiers, hosts."""

from __future__ import annotations

import json

import pytest

from app.core.caps import Windows
from app.core.money import FREE, Price, Rates
from app.core.policy import (
    Candidate,
    Capabilities,
    ChatHabits,
    Deadlines,
    LedgerRules,
    Policy,
    Provider,
    Retries,
)
from app.stores.policy_compile import tier_of, unlisted_candidate
from app.stores.prices import Catalogue, load_bundled
from tests.stores.policy_texts import BASE, CATALOGUE, CONTRACT, all_problems, build, model, provider


def only(policy: Policy) -> Candidate:
    return policy.models["m"]


def test_the_contract_loads_as_it_stands() -> None:
    policy = build(CONTRACT)
    assert policy.warnings == ()
    assert policy.open_access
    assert policy.source == "p.yaml"
    assert policy.prices_version == CATALOGUE.version
    assert len(policy.version) == 12
    a, b = policy.providers["a"], policy.providers["b"]
    assert (a.name, a.dialect, a.base_url) == ("a", "openai_chat", "http://127.0.0.1:9001/v1")
    assert a.api_key is not None
    assert a.api_key.value == "none"
    assert b.api_key is None
    small, _, large = policy.models.values()
    assert (small.provider, small.upstream_model, small.tier) == (a, "small-v1", 1)
    assert small.price == Price(Rates(100_000_000, 400_000_000))
    assert small.budget.max_cost_nano == 19_200_000  # 64 * 0.0001 + 32 * 0.0004 dollars
    assert (large.budget.max_cost_nano, large.budget.hard_timeout_s) == (300_000_000, 600.0)
    assert large.budget.expected_ttft_s == 30.0
    assert large.budget.expected_ttf_solution_s is None
    auto = policy.routes["auto"]
    assert auto.candidates == ("small", "small-b", "large")
    assert auto.fallback == ("small-b", "large")
    assert (auto.adequacy, auto.min_confidence, auto.retries, auto.on_cut) == (0.8, 0.7, Retries(), None)
    assert policy.caps.task_nano == 1_000_000_000
    assert policy.caps.request_nano is None
    assert policy.ledger == LedgerRules()
    assert policy.on_cut == "error"
    assert policy.unknown_model is None


def test_the_contract_takes_its_key_from_the_environment() -> None:
    key = build(CONTRACT, {"A_KEY": "sk-a"}).providers["a"].api_key
    assert key is not None
    assert key.value == "sk-a"


# Budgets


@pytest.mark.parametrize(
    ("input_per_1k", "output_per_1k", "cap_nano"),
    [
        (0.0003, 0.0012, 57_600_000),
        (0.0006, 0.00208, 104_960_000),
        (0.015, 0.075, 500_000_000),
        (0, 0, None),
        (0, 0.001, 32_000_000),
    ],
)
def test_a_cap_left_out_follows_the_formula(input_per_1k: float, output_per_1k: float, cap_nano: int | None) -> None:
    text = model(pricing={"input_per_1k": input_per_1k, "output_per_1k": output_per_1k})
    assert only(build(text)).budget.max_cost_nano == cap_nano


PAID = {"input_per_1k": 0.001, "output_per_1k": 0.002}


def test_zero_is_no_enforcement_and_free_has_no_cap() -> None:
    assert only(build(model(pricing=PAID, budgets={"max_cost_usd": 0}))).budget.max_cost_nano is None
    assert only(build(model(pricing=PAID, budgets={"max_cost_usd": 0.05}))).budget.max_cost_nano == 50_000_000
    assert only(build(model(pricing="free"))).budget.max_cost_nano is None
    assert only(build(model(pricing="free", budgets={"max_cost_usd": 1}))).budget.max_cost_nano is None
    assert only(build(model(budgets={"max_cost_usd": 1}))).budget.max_cost_nano == 1_000_000_000


def test_clocks_are_read() -> None:
    budgets = {"hard_timeout_secs": 5, "expected_ttft_secs": 9, "expected_ttf_solution_secs": 2.5}
    policy = build(model(pricing=PAID, budgets=budgets))
    budget = only(policy).budget
    assert (budget.hard_timeout_s, budget.expected_ttft_s, budget.expected_ttf_solution_s) == (5.0, 9.0, 2.5)
    assert policy.warnings == ("model m: expected_ttft_secs is longer than hard_timeout_secs",)


# Prices


def test_the_policys_own_price_wins_with_all_its_rates_and_tiers() -> None:
    pricing = {
        **PAID,
        "cache_read_per_1k": 0.0001,
        "cache_write_per_1k": 0.00125,
        "cache_write_1h_per_1k": 0.002,
        "reasoning_per_1k": 0.003,
        "tiers": [
            {"above_tokens": 500_000, "input_per_1k": 0.004, "output_per_1k": 0.008, "cache_read_per_1k": 0},
            {"above_tokens": 200_000, "input_per_1k": 0.002, "output_per_1k": 0.004, "reasoning_per_1k": 0.005},
        ],
    }
    price = only(build(model(upstream_model="gpt-4o-mini", pricing=pricing))).price
    million = 1_000_000
    assert price == Price(
        Rates(1000 * million, 2000 * million, 100 * million, 1250 * million, 2000 * million, 3000 * million),
        (
            (
                200_000,
                Rates(2000 * million, 4000 * million, 100 * million, 1250 * million, 2000 * million, 5000 * million),
            ),
            (500_000, Rates(4000 * million, 8000 * million, 0, 1250 * million, 2000 * million, None)),
        ),
        "policy",
    )


def test_a_price_left_out_is_the_catalogues() -> None:
    candidate = only(build(model(upstream_model="gpt-4o-mini")))
    assert candidate.price == Price(Rates(150_000_000, 600_000_000, 75_000_000), source="catalogue:gpt-4o-mini")
    assert candidate.budget.max_cost_nano == 28_800_000
    assert candidate.capabilities == Capabilities(
        context_tokens=128_000,
        max_output_tokens=16_384,
        tools=True,
        vision=True,
        json_schema=False,
        hidden_reasoning=True,
    )


def test_what_the_policy_says_of_a_model_stands_before_the_catalogue() -> None:
    said = {
        "context_tokens": 10,
        "max_output_tokens": 5,
        "tools": False,
        "json_schema": True,
        "hidden_reasoning": False,
    }
    candidate = only(build(model(upstream_model="gpt-4o-mini", pricing=PAID, **said)))
    assert candidate.capabilities == Capabilities(
        context_tokens=10, max_output_tokens=5, tools=False, vision=True, json_schema=True, hidden_reasoning=False
    )


def test_an_unknown_price_is_none_and_warned_about() -> None:
    policy = build(model())
    assert only(policy).price is None
    assert only(policy).tier == 3
    assert only(policy).budget.max_cost_nano is None
    assert policy.warnings == ("model m has no price: wherever a cap applies it is refused",)


def test_an_own_price_without_the_caches_rates_is_warned_about() -> None:
    costs = ("input_cost_per_token", "output_cost_per_token")
    caches = ("cache_read_input_token_cost", "cache_creation_input_token_cost")
    row = {"mode": "chat", **dict.fromkeys(costs + caches, 1e-6)}
    catalogue = Catalogue(json.dumps({"claude": row, "plain": {"mode": "chat", **dict.fromkeys(costs, 1e-6)}}).encode())
    own = {"input_per_1k": 0.003, "output_per_1k": 0.015}

    def warnings(name: str = "claude", **pricing: float) -> tuple[str, ...]:
        return build(model(upstream_model=name, pricing={**own, **pricing}), catalogue=catalogue).warnings

    (warning,) = warnings()
    assert "no cache_read_per_1k and no cache_write_per_1k:" in warning
    assert "no cache_write_per_1k:" in warnings(cache_read_per_1k=0)[0]
    assert warnings(cache_read_per_1k=0.0003, cache_write_per_1k=0) == ()
    assert warnings("mine") == warnings("plain") == warnings(input_per_1k=0, output_per_1k=0) == ()
    assert build(model(upstream_model="claude"), catalogue=catalogue).warnings == ()
    assert build(model(upstream_model="claude", pricing="free"), catalogue=catalogue).warnings == ()


def test_a_free_provider_costs_nothing_and_has_nothing_from_the_catalogue() -> None:
    candidate = only(build(provider(free=True)))
    assert candidate.price is FREE
    assert candidate.tier == 1
    assert candidate.capabilities == Capabilities()


def test_the_host_tells_how_the_catalogue_spells_names() -> None:
    text = provider(base_url="https://api.groq.com/openai/v1").replace("gpt-4o-mini", "llama")
    price = only(build(text)).price
    assert price is not None
    assert price.source == "catalogue:groq/llama"
    assert only(build(text.replace("api.groq.com", "other.test"))).price is None
    prefixed = provider(catalogue_prefixes=["nope/", "groq/"]).replace("gpt-4o-mini", "llama")
    assert only(build(prefixed)).price == price


@pytest.mark.parametrize(
    ("price", "tier"),
    [
        (None, 3),
        (FREE, 1),
        (Price(Rates(150_000_000, 600_000_000)), 1),  # gpt-4o-mini
        (Price(Rates(1_000_000_000, 5_000_000_000)), 2),
        (Price(Rates(3_000_000_000, 15_000_000_000)), 3),
        (Price(Rates(15_000_000_000, 75_000_000_000)), 4),  # as the contract has it
        (Price(Rates(10**15, 10**15)), 9),
    ],
)
def test_a_tier_left_out_follows_from_the_price(price: Price | None, tier: int) -> None:
    assert tier_of(price) == tier


def test_an_unlisted_model_is_a_candidate_like_any_other() -> None:
    groq = Provider("g", "openai_chat", "https://api.groq.com/v1", any_model=True, catalogue_prefixes=("groq/",))
    candidate = unlisted_candidate(groq, "llama", CATALOGUE)
    assert (candidate.name, candidate.upstream_model, candidate.listed) == ("g/llama", "llama", False)
    assert candidate.price is not None
    assert candidate.budget.max_cost_nano == 9_600_000
    assert unlisted_candidate(groq, "no such model", CATALOGUE).price is None


# Providers


@pytest.mark.parametrize(
    ("base_url", "limit_field", "bills"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens", False),
        ("https://me.openai.azure.com/openai/v1", "max_completion_tokens", False),
        ("https://api.groq.com/openai/v1", "max_tokens", True),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "max_tokens", True),
        ("https://API.Mistral.ai/v1", "max_tokens", True),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "max_tokens", True),
        ("https://api.perplexity.ai", "max_tokens", True),
        ("https://api.sambanova.ai/v1", "max_tokens", True),
        ("https://api.tokenfactory.nebius.com/v1", "max_tokens", True),
        ("https://dashscope-us.aliyuncs.com/compatible-mode/v1", "max_tokens", True),
        ("https://api.x.ai/v1", "max_tokens", False),
        ("https://notapi.groq.com.example/v1", "max_tokens", False),
        ("https://xamazonaws.com/v1", "max_tokens", False),
    ],
)
def test_the_host_tells_the_limits_field_and_whether_a_cut_saves_anything(
    base_url: str, limit_field: str, bills: bool
) -> None:
    made = build(provider(base_url=base_url)).providers["p"]
    assert (made.chat.limit_field, made.bills_after_cancel) == (limit_field, bills)
    said = provider(base_url=base_url, limit_field="max_tokens", bills_after_cancel=not bills)
    made = build(said).providers["p"]
    assert (made.chat.limit_field, made.bills_after_cancel) == ("max_tokens", not bills)


@pytest.mark.parametrize(
    ("base_url", "habits"),
    [
        ("https://api.openai.com/v1", ChatHabits("max_completion_tokens")),
        ("https://api.deepseek.com/v1", ChatHabits(only=True)),
        ("https://api.mistral.ai/v1", ChatHabits(only=True, include_usage=False, takes_reasoning=False, fim=True)),
        ("https://api.groq.com/openai/v1", ChatHabits(takes_reasoning=False)),
        ("http://127.0.0.1:8000/v1", ChatHabits()),
    ],
)
def test_the_host_tells_what_it_takes_in_chat_and_the_policy_knows_better(base_url: str, habits: ChatHabits) -> None:
    assert build(provider(base_url=base_url)).providers["p"].chat == habits
    made = build(provider(base_url=base_url, limit_field="max_tokens", include_usage=False, takes_reasoning=True))
    assert made.providers["p"].chat == ChatHabits("max_tokens", only=True, include_usage=False, fim=habits.fim)


def test_the_table_of_hosts_that_bill_after_a_cancel_can_be_replaced() -> None:
    table = "bills_after_cancel: {source: me, hosts: [P.test]}\n"
    assert build(provider(base_url="https://eu.p.test/v1") + table).providers["p"].bills_after_cancel
    assert not build(provider(base_url="https://api.groq.com/v1") + table).providers["p"].bills_after_cancel


def test_a_providers_other_fields() -> None:
    made = build(
        provider(
            headers={"X-Org": "secret-org"},
            any_model=True,
            embedded="smollm2",
            deadlines={"ttft_secs": 7, "write_secs": 0.5},
        )
    ).providers["p"]
    assert made.headers == {"X-Org": "secret-org"}
    assert "secret-org" not in repr(made)
    assert made.any_model
    assert made.embedded == "smollm2"
    assert made.deadlines == Deadlines(ttft_s=7.0, write_s=0.5)


def test_what_a_provider_wants_behind_every_path() -> None:
    made = build(
        provider(
            base_url="https://me.openai.azure.com/openai/deployments/d", query={"api-version": "2024-10-21", "a": "b&c"}
        )
    )
    given = made.providers["p"]
    assert given.url("/chat/completions") == f"{given.base_url}/chat/completions?api-version=2024-10-21&a=b%26c"
    assert given.url("/m:stream?alt=sse") == f"{given.base_url}/m:stream?alt=sse&api-version=2024-10-21&a=b%26c"
    assert "2024" not in repr(given)
    assert build(provider()).providers["p"].url("/x?y").endswith("/x?y")


# Caps, keys and the rest


def test_caps_keys_routes_and_the_ledger() -> None:
    policy = build(
        BASE
        + f"""\
routes: {{auto: {{candidates: [m], on_cut: length, retries: {{attempts: 0}}}}}}
unknown_model: auto
on_cut: length
caps:
  request: {{max_cost_usd: 2}}
  task: {{max_cost_usd: 1}}
  key: {{day: {{max_cost_usd: 3}}}}
  team: {{day: {{max_cost_usd: 6}}}}
  global: {{month: {{max_cost_usd: 4.5}}, total: {{max_cost_usd: 5}}}}
teams:
  lab: {{caps: {{month: {{max_cost_usd: 70}}}}, routes: [auto]}}
  rest: {{}}
keys:
  - {{name: ci, sha256: {"a" * 64}, caps: {{total: {{max_cost_usd: 0.1}}}}, routes: [auto]}}
  - {{name: ann, sha256: {"c" * 64}, team: lab, caps: {{hour: {{max_cost_usd: 1}}, minute: {{max_calls: 9}}}}}}
  - {{name: ben, sha256: {"d" * 64}, team: rest, routes: []}}
  - {{name: root, sha256: {"B" * 64}, admin: true, expires: 2026-12-31}}
ledger: {{on_failure: open, contention_wait_secs: 0}}
"""
    )
    assert (policy.caps.request_nano, policy.caps.task_nano) == (2_000_000_000, 1_000_000_000)
    assert (policy.caps.task_calls, policy.caps.task_tokens, policy.caps.task_s) == (None, None, None)
    assert (policy.caps.task_repeats, policy.caps.task_idle_days) == (None, 30)
    assert policy.caps.everyone == Windows(None, 4_500_000_000, 5_000_000_000)
    ci, root = policy.keys["a" * 64], policy.keys["b" * 64]
    assert (ci.name, ci.routes, ci.admin) == ("ci", ("auto",), False)
    assert policy.key_windows(ci) == Windows(total_nano=100_000_000)
    assert policy.key_windows(root) == policy.key_windows(None) == Windows(day_nano=3_000_000_000)
    assert root.admin
    assert (root.expires_s, ci.expires_s) == (1798675200.0, None)
    assert (root.routes, root.team) == (None, None)
    ann, ben = policy.keys["c" * 64], policy.keys["d" * 64]
    assert (ann.team, ann.routes, ben.team, ben.routes) == ("lab", ("auto",), "rest", ())
    assert policy.key_windows(ann) == Windows(hour_nano=1_000_000_000, minute_calls=9)
    assert [policy.key_windows(key).finest for key in (ci, ann)] == ["day", "minute"]
    assert policy.finest_window() == "minute"
    assert policy.team_windows("lab") == Windows(month_nano=70_000_000_000)
    assert policy.team_windows("rest") == policy.team_windows("gone") == Windows(day_nano=6_000_000_000)
    assert not policy.open_access
    assert policy.routes["auto"].on_cut == "length"
    assert policy.routes["auto"].retries.attempts == 0
    assert (policy.unknown_model, policy.on_cut) == ("auto", "length")
    assert policy.ledger == LedgerRules("open", 0, 0.0)
    assert policy.warnings == (
        "caps.request is above caps.task: it never binds within a task",
        "ledger.on_failure is open with an allowance of 0: that is closed",
    )


def test_the_policy_cannot_be_changed_by_who_holds_it() -> None:
    policy = build(CONTRACT)
    for held in (
        policy.models,
        policy.providers,
        policy.routes,
        policy.keys,
        policy.teams,
        policy.providers["a"].headers,
    ):
        with pytest.raises(TypeError):
            held["x"] = None  # type: ignore[index]


def test_real_names_are_priced_at_their_hosts() -> None:
    bundled = load_bundled()
    for host, name in (
        ("api.openai.com", "gpt-5-mini"),
        ("api.anthropic.com", "claude-haiku-4-5"),
        ("api.deepseek.com", "deepseek-v4-flash"),
        ("api.fireworks.ai/inference", "accounts/fireworks/models/gpt-oss-20b"),
        ("generativelanguage.googleapis.com/v1beta", "gemini-2.5-pro"),
        ("me.openai.azure.com/openai", "gpt-5-mini"),
    ):
        text = provider(base_url=f"https://{host}/v1").replace("gpt-4o-mini", name)
        assert only(build(text, catalogue=bundled)).price is not None, host


def test_aliases_map_names_in_order() -> None:
    policy = build(CONTRACT + 'aliases: {claude-opus-*: large, "claude-*": auto, gpt-?: "tier:1"}\n')
    asked = ["claude-opus-5-5", "claude-haiku", "gpt-5", "gpt-55", "Claude-x", "auto"]
    assert [policy.meant_by(name) for name in asked] == ["large", "auto", "tier:1", "gpt-55", "Claude-x", "auto"]
    (problem,) = all_problems(CONTRACT + "aliases: {gpt-*: autoo}\n")
    assert "there is no route or model 'autoo'; did you mean 'auto'?" in str(problem)


def test_a_tasks_caps_besides_dollars() -> None:
    limits = "max_calls: 40, max_tokens: 200000, max_seconds: 900.5, max_repeats: 3"
    task = f"{{{limits}, idle_days: 7, max_parallel_requests: 8}}"
    caps = build(f"{BASE}caps: {{task: {task}, global: {{max_parallel_requests: 90}}}}\n").caps
    assert (caps.task_parallel, caps.everyone.parallel, caps.key.parallel) == (8, 90, None)
    assert (caps.task_calls, caps.task_tokens, caps.task_s) == (40, 200_000, 900.5)
    assert (caps.task_nano, caps.task_repeats, caps.task_idle_days) == (None, 3, 7)


@pytest.mark.parametrize(
    "task", ["{max_calls: 0}", "{max_calls: 1.5}", "{max_seconds: 0}", "{idle_days: 0.5}", "{max_parallel_requests: 0}"]
)
def test_caps_of_a_task_that_are_none(task: str) -> None:
    (problem,) = all_problems(f"{BASE}caps: {{task: {task}}}\n")
    assert "caps.task" in str(problem)


def test_openais_responses_take_no_limit_under_sixteen() -> None:
    both = provider(base_url="https://api.openai.com/v1", also=["openai_responses"])
    assert [build(both).providers["p"].least_tokens(name) for name in ("openai_responses", "openai_chat")] == [16, 1]
    other = provider(base_url="http://127.0.0.1:8000/v1", dialect="openai_responses")
    assert build(other).providers["p"].least_tokens("openai_responses") == 1
