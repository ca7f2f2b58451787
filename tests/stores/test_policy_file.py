"""What is wrong with a policy is said all at once, with the line, in people's words and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.stores.policy_file import load_policy
from app.stores.policy_model import PolicySpec
from app.stores.policy_yaml import PolicyError, Source, read_document
from tests.stores.policy_texts import BASE, CATALOGUE, CONTRACT, all_problems, build


def found(text: str, **env: str) -> list[str]:
    return [str(problem).removeprefix("p.yaml:") for problem in all_problems(text, env)]


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    text = """\
version: 2
providers:
  a: {dialect: openai_caht, base_url: "ftp://x", api_kye: sk-secret}
  b: {base_url: "${NOPE}", deadlines: {conect_secs: 3}}
  b: {base_url: "http://x/v1"}
models:
  small: {provider: aa, tier: 12, pricing: {input_per_1k: -1, outptu_per_1k: 4, tiers: [{above: 3}]}}
  s2: {provider: b, pricing: fre, budgets: {max_cost_usd: a lot}}
  bad name: {provider: b}
  s3:
routes:
  auto: {candidates: [smal, s2, s2], adequacy: 1.8}
  r2: {candidates: []}
caps:
  task: {max_cost_usd: 0}
  globl: {}
keys:
  - {name: x, sha256: sk-secret}
  - {name: x, sha256: "${H}", routes: [autoo]}
kyes: []
unknown_model: aut
"""
    assert found(text) == [
        "1:10: version: must be 1",
        "3:16: providers.a.dialect: must be 'openai_chat', 'openai_responses', 'anthropic', 'gemini' or 'litellm'",
        "3:39: providers.a.base_url: must be an http:// or https:// URL, such as https://api.openai.com/v1",
        "3:50: providers.a.api_kye: unknown field; did you mean 'api_key'?",
        "4:17: providers.b.base_url: the variable NOPE is not set; ${NOPE:-...} gives a default",
        "4:40: providers.b.deadlines.conect_secs: unknown field; did you mean 'connect_secs'?",
        "5:3: providers.b: duplicate key; the first is in p.yaml, line 4",
        "7:21: models.small.provider: there is no provider 'aa'; did you mean 'a'?",
        "7:31: models.small.tier: must be less than or equal to 9",
        "7:35: models.small.pricing.output_per_1k: is required",
        "7:59: models.small.pricing.input_per_1k: must be greater than or equal to 0",
        "7:63: models.small.pricing.outptu_per_1k: unknown field; did you mean 'output_per_1k' "
        "(dollars per 1,000 tokens)?",
        "7:89: models.small.pricing.tiers.0.above_tokens: is required",
        "7:89: models.small.pricing.tiers.0.input_per_1k: is required",
        "7:89: models.small.pricing.tiers.0.output_per_1k: is required",
        "7:90: models.small.pricing.tiers.0.above: unknown field; did you mean 'above_tokens'?",
        "8:30: models.s2.pricing: must be 'free' or a mapping of rates",
        "8:59: models.s2.budgets.max_cost_usd: must be a number of dollars (5, not $5)",
        "9:3: models.bad name: a name starts with a letter or digit and goes on with letters, digits, `.`, `_` or `-`, "
        "at most 128; a model's name may also hold `:`, `/`, `@`, `+`",
        "10:6: models.s3: must be a mapping",
        "12:23: routes.auto.candidates.0: there is no model 'smal'; did you mean 'small'?",
        "12:33: routes.auto.candidates.2: is listed twice: the models are asked in this order, once each",
        "12:48: routes.auto.adequacy: must be less than or equal to 1",
        "13:8: routes.r2.candidates: must not be empty",
        "15:24: caps.task.max_cost_usd: must be above 0; to set no cap, leave it out",
        "16:3: caps.globl: unknown field; did you mean 'global'?",
        "18:23: keys.0.sha256: must be 64 hex digits, as `bursar keys new NAME` prints them",
        "19:12: keys.1.name: another key has this name",
        "19:23: keys.1.sha256: the variable H is not set; ${H:-...} gives a default",
        "19:40: keys.1.routes.0: there is no route 'autoo'; did you mean 'auto'?",
        "20:1: kyes: unknown field; did you mean 'keys'?",
        "21:16: unknown_model: there is no route 'aut'; did you mean 'auto'?",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("models: 3", "6:9: models: must be a mapping"),
        ("models: {m: {provider: [p]}}", "6:14: models.m.provider: must be text; a number or true/false needs quotes"),
        ("keys: {}", "6:1: keys: must be a list"),
        ("routes: {auto: m}", "6:16: routes.auto: must be a mapping"),
        ("routes: {auto: {}}", "6:10: routes.auto.candidates: is required"),
        ("routes: {auto: {candidates: m}}", "6:29: routes.auto.candidates: must be a list"),
        ("routes: {m: {candidates: [m]}}", "6:10: routes.m: is also the name of a model"),
        ("routes: {auto: {candidates: [m], fallback: [mm]}}",
         "6:45: routes.auto.fallback.0: there is no model 'mm'; did you mean 'm'?"),
        ("routes: {auto: {candidates: [1]}}",
         "6:30: routes.auto.candidates.0: must be text; a number or true/false needs quotes"),
        ("routes: {auto: {candidates: [m], retries: {attempts: 1.5}}}",
         "6:54: routes.auto.retries.attempts: must be a whole number"),
        ("routes: {auto: {candidates: [m], adequacy: true}}", "6:44: routes.auto.adequacy: must be a number"),
        ("caps: {request: {max_cost_usd: -1}}",
         "6:32: caps.request.max_cost_usd: must be greater than or equal to 0"),
        ("caps: {request: {max_cost_usd: 1e12}}",
         "6:32: caps.request.max_cost_usd: an amount in dollars must be below nine million"),
        ("caps: {request: {max_cost_usd: .inf}}",
         "6:32: caps.request.max_cost_usd: must be a number of dollars (5, not $5)"),
        ("caps: {key: {day: 3}}", "6:19: caps.key.day: must be a mapping"),
        ("caps: {key: {minute: {}}}", "6:14: caps.key.minute: needs max_calls or max_tokens"),
        (f"keys: [{{name: k, sha256: {'a' * 64}, expires: 2026-13-01}}]",
         "6:101: keys.0.expires: must be a day or a time, such as 2026-12-31 or 2026-12-31T18:00Z"),
        (f"keys: [{{name: k, sha256: {'a' * 64}, expires: '9999-12-31T23:59-14:00'}}]",
         "6:101: keys.0.expires: must be a day or a time, such as 2026-12-31 or 2026-12-31T18:00Z"),
        ("caps: {key: {week: {}}}", "6:14: caps.key.week: unknown field (only day, hour, "
         "max_parallel_requests, minute, month, total)"),
        ("keys: [{name: a b, sha256: x}]", "6:15: keys.0.name: a name starts with a letter or digit and goes on with "
         "letters, digits, `.`, `_` or `-`, at most 64"),
        ("keys: [{sha256: x, admin: maybe}]", "6:27: keys.0.admin: must be true or false"),
        ("teams: {lab: {}}\nkeys: [{name: k, team: lb}]",
         "7:24: keys.0.team: there is no team 'lb'; did you mean 'lab'?"),
        ("teams: {lab: {routes: [x]}}", "6:24: teams.lab.routes.0: there is no route 'x'"),
        (
            "teams: {lab: {routes: [m]}}",
            "6:24: teams.lab.routes.0: 'm' is a model, and this names routes: one with that one candidate allows it",
        ),
        ("teams: {lab: {cap: {}}}", "6:15: teams.lab.cap: unknown field; did you mean 'caps'?"),
        ("models: {m: {provider: p, budgets: {hard_timeout_secs: 10m}}}",
         "6:56: models.m.budgets.hard_timeout_secs: must be a number of seconds"),
        ("models: {m: {provider: p, pricing: {input_per_1m: 1, output_per_1k: 1}}}",
         "6:37: models.m.pricing.input_per_1m: unknown field; did you mean 'input_per_1k' (dollars per 1,000 tokens)?"),
        ("require_replay: {since: 1 week}", "6:25: require_replay.since: must be a span such as 24h or 7d, or all"),
        (f"keys: [{{name: k, sha256: {'a' * 64}, judges: true, caps: {{}}}}]",
         "6:8: keys.0: a key that judges makes no calls, so that it goes without caps"),
        ("keys: [{name: k, models: [m]}]",
         "6:18: keys.0.models: unknown field (only admin, caps, expires, former_sha256, judges, name, probes, routes,"
         " sha256, team, user_caps)"),
        ("model_list: []",
         "6:1: model_list: unknown field: this is LiteLLM's; docs/migrate.md says what becomes of it"),
        ("on_cut: stop", "6:9: on_cut: must be 'error' or 'length'"),
        ("ledger: {on_failure: opne}", "6:22: ledger.on_failure: must be 'closed' or 'open'"),
        ("ledger: {on_failure: open, open_allowance: 3}",
         "6:28: ledger.open_allowance: unknown field; did you mean 'open_allowance_usd'?"),
        ("bills_after_cancel: {hosts: [x]}", "6:1: bills_after_cancel.source: is required"),
    ],
)  # fmt: skip
def test_each_kind_of_mistake_has_its_line_and_words(line: str, expected: str) -> None:
    text = BASE if not line.startswith("models") else BASE.split("models:")[0] + "\n\n"
    assert expected in found(text + line + "\n")


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ("base_url: 'http://u:p@x/v1'", "base_url", "use api_key, headers or query"),
        ("base_url: 'http://x/v1?key=sk-secret'", "base_url", "use api_key, headers or query"),
        ("base_url: 'http://x:99999/v1'", "base_url", "must be an http://"),
        ("base_url: 'http:///v1'", "base_url", "must be an http://"),
        ("base_url: x, api_key: 123", "api_key", "needs quotes"),
        ('base_url: "http://x", api_key: "sk-secret\\n"', "api_key", "printable ASCII"),
        ("base_url: 'http://x', headers: {X-A: sk-sécret}", "headers.X-A", "printable ASCII"),
        (
            "base_url: 'http://x', dialect: antropic",
            "dialect",
            "'openai_responses', 'anthropic', 'gemini' or 'litellm'",
        ),
        ("base_url: 'http://x', embedded: llama", "embedded", "must be 'smollm2'"),
        ("base_url: 'http://x', deadlines: {ttft_secs: 0}", "deadlines.ttft_secs", "greater than 0"),
        ("base_url: 'http://x', catalogue_prefixes: []", "catalogue_prefixes", "must not be empty"),
        ("any_model: true", "base_url", "is required"),
    ],
)
def test_providers_are_checked(fields: str, where: str, message: str) -> None:
    (problem, *rest) = all_problems(f"version: 1\nproviders:\n  p: {{{fields}}}\n")
    hits = [p for p in (problem, *rest) if p.where == f"providers.p.{where}"]
    assert len(hits) == 1
    assert message in hits[0].message
    assert hits[0].line == 3
    assert "secret" not in str(problem)
    assert "sécret" not in str(problem)


def test_a_problem_in_one_place_does_not_hide_behind_one_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text("models:\n  n: {provider: q}\n  m: {provider: p}\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path, env={}, catalogue=CATALOGUE)
    assert [(Path(p.file).name, p.line, p.where) for p in caught.value.problems] == [
        ("b.yaml", 2, "models.n.provider"),
        ("b.yaml", 3, "models.m"),
    ]


def test_a_directory_and_one_file_with_the_same_text_are_the_same_policy(tmp_path: Path) -> None:
    head, tail = CONTRACT.split("routes:")
    (tmp_path / "10-models.yaml").write_text(head)
    (tmp_path / "20-routes.yaml").write_text("routes:" + tail)
    split, whole = load_policy(tmp_path, env={}, catalogue=CATALOGUE), build(CONTRACT)
    assert (split.models, split.routes, split.caps) == (whole.models, whole.routes, whole.caps)
    assert split.source == str(tmp_path)


def test_an_empty_file_says_what_is_missing() -> None:
    assert found("") == ["1:1: providers: is required", "1:1: version: is required"]
    assert found("version: 1\nproviders: {}\n") == ["2:1: providers: must not be empty"]


def test_two_keys_may_not_share_a_hash() -> None:
    hashed = "a" * 64
    text = BASE + f"keys:\n  - {{name: x, sha256: {hashed}}}\n  - {{name: y, sha256: {hashed.upper()}}}\n"
    assert found(text) == ["8:23: keys.1.sha256: another key has this hash"]
    (problem,) = found(text.replace("y, sha256", f"y, sha256: {'b' * 64}, former_sha256"))
    assert problem.endswith("keys.1.former_sha256: another key has this hash")


def test_tiers_may_not_share_a_threshold() -> None:
    tier = "{above_tokens: 9, input_per_1k: 1, output_per_1k: 1}"
    text = BASE.replace("output_per_1k: 0.002", f"output_per_1k: 0.002, tiers: [{tier}, {tier}]")
    (problem,) = found(text)
    assert "models.m.pricing.tiers.1.above_tokens: another tier starts at the same number" in problem


def test_a_models_name_may_not_look_like_a_tier() -> None:
    text = BASE + '  "tier:2": {provider: p}\n'
    assert found(text) == ["6:3: models.tier:2: `tier:` is how clients ask for a tier"]


def test_numbers_and_switches_may_come_from_the_environment() -> None:
    text = BASE + 'caps: {task: {max_cost_usd: "${CAP:-1.25}"}}\nkeys: [{name: k, sha256: "${H}", admin: "${ADMIN}"}]\n'
    policy = build(text, {"H": "b" * 64, "ADMIN": "true"})
    assert policy.caps.task_nano == 1_250_000_000
    assert policy.keys["b" * 64].admin
    assert found(text, H="sk-secret", ADMIN="true", CAP="sk-secret") == [
        "6:29: caps.task.max_cost_usd: must be a number of dollars (5, not $5)",
        "7:26: keys.0.sha256: must be 64 hex digits, as `bursar keys new NAME` prints them",
    ]


def test_a_name_from_the_environment_is_never_quoted() -> None:
    (problem,) = found(BASE + "unknown_model: ${R}\n", R="sk-secret")
    assert problem == "6:16: unknown_model: what the variable holds is not the name of a route"


# What drops out

OPTIONAL = (
    BASE
    + """\
  n: {provider: q, pricing: free}
  o: {provider: p, upstream_model: "${O_MODEL}", optional: true, pricing: free}
routes:
  auto: {candidates: [n, m, o], fallback: [o, n, m]}
  far: {candidates: [n, o]}
unknown_model: far
keys: [{name: k, sha256: "%s", routes: [far, auto]}]
"""
    % ("c" * 64)
)
OPTIONAL = OPTIONAL.replace("models:\n", '  q: {base_url: "${Q_URL}", api_key: "${Q_KEY}", optional: true}\nmodels:\n')


def test_an_optional_provider_without_its_variables_takes_all_that_needs_it_along() -> None:
    policy = build(OPTIONAL)
    assert list(policy.providers) == ["p"]
    assert list(policy.models) == ["m"]
    assert list(policy.routes) == ["auto"]
    assert (policy.routes["auto"].candidates, policy.routes["auto"].fallback) == (("m",), ("m",))
    assert policy.unknown_model is None
    assert policy.keys["c" * 64].routes == ("auto",)
    assert policy.warnings == (
        "provider q is off: Q_URL, Q_KEY are not set (models: n)",
        "model o is off: O_MODEL is not set",
        "route far is off: all of its candidates are",
        "unknown_model is off: route far is",
    )


def test_further_providers_of_a_model_are_names_too() -> None:
    problems = found(BASE.replace("m: {provider: p,", "m: {provider: p, also_at: [pp, p, p],"))
    assert [line.split(": ", 1)[1] for line in problems] == [
        "models.m.also_at.0: there is no provider 'pp'; did you mean 'p'?",
        "models.m.also_at.2: is listed twice",
    ]


@pytest.mark.parametrize(("here", "also"), [("p", "q"), ("q", "p")])
def test_a_model_is_on_while_one_of_its_providers_is(here: str, also: str) -> None:
    text = OPTIONAL.replace("n: {provider: q,", f"n: {{provider: {here}, also_at: [{also}],")
    off = build(text).models["n"]
    assert (off.provider.name, off.copies) == ("p", ())
    on = build(text, {"Q_URL": "https://q.test/v1", "Q_KEY": "k", "O_MODEL": "oo"})
    assert [(one.circuit, one.provider.name) for one in on.models["n"].copies] == [
        (f"n at {here}", here),
        (f"n at {also}", also),
    ]
    assert set(on.circuits()) == {"m", "n at p", "n at q", "o"}


def test_with_its_variables_everything_is_there() -> None:
    policy = build(OPTIONAL, {"Q_URL": "https://q.test/v1/", "Q_KEY": "sk-secret", "O_MODEL": "oo"})
    assert list(policy.models) == ["m", "n", "o"]
    assert policy.models["o"].upstream_model == "oo"
    assert policy.providers["q"].base_url == "https://q.test/v1"
    assert policy.providers["q"].api_key is not None
    assert policy.providers["q"].api_key.value == "sk-secret"
    assert policy.unknown_model == "far"
    assert not policy.warnings
    assert "sk-secret" not in repr(policy)


def test_a_variable_that_is_not_optional_is_a_problem_for_the_model_too() -> None:
    text = OPTIONAL.replace(", optional: true", "")
    assert [line.split(": ")[1] for line in found(text)] == [
        "providers.q.base_url",
        "providers.q.api_key",
        "models.o.upstream_model",
    ]


def test_a_typo_in_what_drops_out_is_still_a_typo() -> None:
    text = OPTIONAL.replace("optional: true}\nmodels", "optional: true, any_modle: true}\nmodels")
    (problem,) = found(text)
    assert "providers.q.any_modle: unknown field; did you mean 'any_model'?" in problem


def test_all_providers_off_is_a_warning() -> None:
    policy = build('version: 1\nproviders: {q: {base_url: "${Q}", optional: true}}\n')
    assert policy.warnings == ("provider q is off: Q is not set", "no provider is on: every call will be refused")


# The other way round

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
DOLLARS = st.decimals(0, 1000, places=6).map(float)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, object]:
    models = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    rates = st.fixed_dictionaries(
        {"input_per_1k": DOLLARS, "output_per_1k": DOLLARS}, optional={"cache_read_per_1k": DOLLARS}
    )
    fields = st.fixed_dictionaries(
        {"provider": st.just("p")},
        optional={
            "pricing": rates | st.just("free"),
            "tier": st.integers(1, 9),
            "budgets": st.fixed_dictionaries({"max_cost_usd": DOLLARS}),
            "tools": st.booleans(),
        },
    )
    return {
        "version": 1,
        "providers": {"p": {"base_url": "http://p.test/v1", "api_key": draw(st.text("aA1$ :#'\"{}", max_size=8))}},
        "models": {name: draw(fields) for name in models},
        "caps": {"global": {"day": {"max_cost_usd": draw(DOLLARS.filter(bool))}}},
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_what_is_written_out_reads_back_the_same(data: dict[str, object]) -> None:
    spec = PolicySpec.model_validate(data)
    dumped = spec.model_dump(by_alias=True, exclude_none=True)
    text = yaml.safe_dump(dumped).replace("${", "$${")
    assert PolicySpec.model_validate(read_document([Source("p.yaml", text.encode())], {}).data) == spec
    assert build(text).models == build(text).models
