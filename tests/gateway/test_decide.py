"""Where a request goes: what each name stands for, what rules a candidate out, and who is asked in which order."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import (
    BursarError,
    ContextTooLong,
    Forbidden,
    ModelNotFound,
    NoCandidate,
    Unpriced,
    UnpricedTool,
    UpstreamError,
)
from app.core.money import FREE, Price, Rates
from app.core.policy import Candidate, Key, Retries, Route
from app.core.types import ChatRequest
from app.gateway.decide import Decision, decide
from app.gateway.target import resolve
from app.gateway.view import View
from tests.dialects.test_errors import RETRIED
from tests.gateway.policy_values import model, policy, provider, request, view

CHEAP, MID, DEAR = model("cheap", 10**6), model("mid", 10**7, tier=2), model("dear", 10**8, tier=4)
AUTO = Route("auto", ("cheap", "mid", "dear"), adequacy=0.8, min_confidence=0.6, fallback=("mid", "dear"))
SCORES = {"cheap": (0.5, 100.0), "mid": (0.9, 100.0), "dear": (0.99, 100.0)}


def choose(
    of: View, asked: ChatRequest | None = None, *, tokens: int = 10, open_: tuple[str, ...] = (), capped: bool = False
) -> Decision:
    """The decision on a request, with every candidate healthy but those named."""
    asked = asked or request()
    return decide(
        asked,
        resolve(of, asked.model),
        of,
        unit="k:task",
        input_tokens=lambda candidate: tokens,
        available=lambda name: name not in open_,
        capped=lambda candidate: capped,
    )


def names(candidates: tuple[Candidate, ...]) -> list[str]:
    return [candidate.name for candidate in candidates]


def verdicts(decision: Decision) -> dict[str, str]:
    return {seen.candidate.name: seen.verdict for seen in decision.considered}


def test_the_cheapest_adequate_is_chosen_and_the_rest_are_in_order() -> None:
    decision = choose(view(policy([CHEAP, MID, DEAR], [AUTO]), SCORES))
    assert decision.chosen is MID
    assert names(decision.order) == ["mid", "dear"]
    assert names(decision.spare) == ["cheap"]
    assert verdicts(decision) == {"cheap": "below adequacy", "mid": "chosen", "dear": "fallback"}
    assert (decision.route, decision.rules) == ("auto", AUTO)
    assert (decision.router, decision.propensity, decision.requested) == ("fixed@7", 1.0, "auto")
    assert [seen.expected_nano for seen in decision.considered] == [110, 1100, 11_000]


def test_a_wordy_cheap_model_can_be_the_dearer_one() -> None:
    scores = {"cheap": (0.9, 5000.0), "mid": (0.9, 100.0), "dear": (0.9, 100.0)}
    decision = choose(view(policy([CHEAP, MID, DEAR], [AUTO]), scores))
    assert decision.chosen is MID
    assert verdicts(decision)["cheap"] == "adequate, dearer"


def test_where_none_is_adequate_the_likeliest_is_taken() -> None:
    scores = {"cheap": (0.5, 1.0), "mid": (0.7, 1.0), "dear": (0.7, 1.0)}
    decision = choose(view(policy([CHEAP, MID, DEAR], [AUTO]), scores))
    assert decision.chosen is MID
    assert decision.reason == "none is adequate: likeliest to succeed"
    unpriced = model("unpriced", None)
    route = Route("auto", ("unpriced", "mid"))
    assert choose(view(policy([unpriced, MID], [route]), {"unpriced": (0.7, 1.0), "mid": (0.7, 1.0)})).chosen is MID


def test_a_fallback_serves_where_no_primary_can() -> None:
    route = Route("auto", ("cheap",), fallback=("dear", "mid", "cheap"))
    of = view(policy([CHEAP, MID, DEAR], [route]), SCORES)
    assert names(choose(of).order) == ["cheap", "dear", "mid"]
    decision = choose(of, open_=("cheap",))
    assert names(decision.order) == ["mid", "dear"]
    assert verdicts(decision)["cheap"] == "circuit open"
    assert names(choose(of, open_=("cheap", "mid")).order) == ["dear"]


@pytest.mark.parametrize(
    ("can", "asked", "verdict"),
    [
        ({"tools": False}, {"tools": 1}, "no tools"),
        ({"vision": False}, {"images": 1}, "no vision"),
        ({"json_schema": False}, {"wants_schema": True}, "no json schema"),
        ({"embeddings": True}, {}, "not a chat model"),
        ({"context_tokens": 5}, {}, "context too small"),
    ],
)
def test_each_capability_rules_out_who_lacks_it(can: dict[str, Any], asked: dict[str, Any], verdict: str) -> None:
    able = model("able", 10**9)
    lacking = model("lacking", 1, **can)
    unsaid: dict[str, Any] = dict.fromkeys(can)
    unknown = model("unknown", 10**8, **unsaid)
    of = view(policy([lacking, able, unknown], [Route("auto", ("lacking", "able", "unknown"))]))
    decision = choose(of, request(prompt=asked))
    assert verdicts(decision) == {"lacking": verdict, "able": "adequate, dearer", "unknown": "chosen"}
    assert lacking not in (*decision.order, *decision.spare)
    with pytest.raises(ContextTooLong if "context" in verdict else NoCandidate):
        choose(view(policy([lacking], [Route("auto", ("lacking",))])), request(prompt=asked))


def test_json_object_needs_no_schema_and_text_no_tools() -> None:
    plain = model("m", tools=False, vision=False, json_schema=False)
    assert choose(view(policy([plain])), request("m", prompt={"wants_json": True})).chosen is plain


def test_a_context_that_may_be_too_small_is_the_last_resort_and_not_a_refusal() -> None:
    small, large = model("small", 1, context_tokens=100), model("large", 10**9, context_tokens=1000)
    of = view(policy([small, large], [Route("auto", ("small", "large"))]))
    decision = choose(of, tokens=120)
    assert names((*decision.order, *decision.spare)) == ["large"]
    assert verdicts(decision)["small"] == "context may be too small"
    alone = choose(of, tokens=120, open_=("large",))
    assert names(alone.order) == ["small"]
    assert verdicts(alone) == {"small": "chosen", "large": "circuit open"}
    assert choose(of, request("small"), tokens=181).chosen is small
    with pytest.raises(ContextTooLong):
        choose(of, request("small"), tokens=182)


def test_an_unpriced_model_is_refused_under_a_cap_only() -> None:
    unpriced = model("m", None)
    of = view(policy([unpriced, DEAR], [Route("auto", ("m", "dear"))]))
    assert choose(of, capped=True).chosen is DEAR
    assert verdicts(choose(of, capped=True))["m"] == "unpriced under a cap"
    assert choose(of, request("m")).chosen is unpriced
    with pytest.raises(Unpriced):
        choose(of, request("m"), capped=True)


def test_a_tool_without_a_fee_is_refused_under_a_cap_only_and_only_where_it_would_run() -> None:
    fee = Price(Rates(1, 1), tool_fees=(("web_search", 10),))
    unpriced, priced = model("m"), dataclasses.replace(model("priced", 10**9), price=fee)
    elsewhere = model("elsewhere", at=dataclasses.replace(provider("e"), dialect="anthropic"))
    of = view(policy([unpriced, priced, elsewhere], [Route("auto", ("m", "priced", "elsewhere"))]))

    def asked(name: str = "auto", **tools: Any) -> ChatRequest:
        return request(name, prompt={"server_tools": ("web_search",), **tools})

    decision = choose(of, asked(), capped=True)
    assert verdicts(decision)["m"] == "unpriced under a cap: web_search"
    assert {seen.candidate.name for seen in decision.usable} == {"priced", "elsewhere"}
    assert choose(of, asked("m")).chosen is unpriced
    free = dataclasses.replace(model("free"), price=FREE)
    assert choose(view(policy([free])), asked("free"), capped=True).chosen is free
    with pytest.raises(UnpricedTool) as caught:
        choose(of, asked("m", server_tools=("web_search", "maps")), capped=True)
    assert "pricing.tool_fees.web_search and pricing.tool_fees.maps" in caught.value.message
    assert not RETRIED.search(caught.value.message)
    searching = model("always", searches=True)
    with pytest.raises(UnpricedTool):
        choose(view(policy([searching])), request("always"), capped=True)


def test_a_search_that_is_certain_is_part_of_what_is_expected() -> None:
    fee = Price(Rates(1, 1), tool_fees=(("web_search", 10**7),))
    searching = dataclasses.replace(model("searching"), price=fee)
    seen = choose(view(policy([searching])), request("searching", prompt={"searches": True}))
    plain = choose(view(policy([searching])), request("searching"))
    (dear,), (cheap,) = seen.considered, plain.considered
    assert (dear.expected_nano or 0) - (cheap.expected_nano or 0) == 10**7


@pytest.mark.parametrize(
    ("tools", "open_", "error"),
    [(False, ("dear",), UpstreamError), (True, ("cheap", "dear"), UpstreamError), (False, (), None)],
)
def test_why_nothing_is_usable(tools: bool, open_: tuple[str, ...], error: type[BursarError] | None) -> None:
    cheap = model("cheap", tools=tools)
    of = view(policy([cheap, DEAR], [Route("auto", ("cheap", "dear"))]))
    if error is None:
        assert choose(of, request(prompt={"tools": 1}), open_=open_).chosen is DEAR
        return
    with pytest.raises(error) as caught:
        choose(of, request(prompt={"tools": 1}), open_=open_)
    assert caught.value.status == 502


def test_a_tier_is_every_chat_model_of_it_cheapest_first() -> None:
    other, embedder = model("other", 10**5, tier=2), model("embedder", 1, tier=2, embeddings=True)
    of = view(policy([CHEAP, MID, other, embedder]), SCORES)
    decision = choose(of, request("tier:2"))
    assert names(decision.order) == ["other", "mid"]
    assert decision.route == "tier:2"
    assert names(choose(of, request("tier:2"), open_=("other",)).order) == ["mid"]
    for bad in ("tier:3", "tier:", "tier:x", "tier:02", "tier:-1"):
        with pytest.raises(ModelNotFound):
            resolve(of, bad)


def test_a_model_by_name_is_that_model_or_nothing() -> None:
    of = view(policy([CHEAP, MID, DEAR], [AUTO]), SCORES)
    decision = choose(of, request("cheap"))
    assert (names(decision.order), decision.spare, decision.route) == (["cheap"], (), None)
    assert decision.reason == "the client named this model"
    for bad in ("", "nobody", "CHEAP", "p/whatever", "cheap "):
        with pytest.raises(ModelNotFound):
            resolve(of, bad)


def test_any_model_of_a_provider_that_serves_any() -> None:
    of = view(policy([CHEAP], providers=[provider("open", any_model=True), provider("shut")]))
    (found,) = resolve(of, "open/org/some-model:free").candidates
    assert (found.name, found.upstream_model) == ("open/org/some-model:free", "org/some-model:free")
    assert (found.price, found.listed, found.provider.name) == (None, False, "open")
    assert resolve(of, "open/org/some-model:free").candidates[0] is found
    for bad in ("open/", "open", "shut/m", "/m", "nobody/m"):
        with pytest.raises(ModelNotFound):
            resolve(of, bad)


def test_unknown_names_go_where_the_policy_sends_them() -> None:
    of = view(policy([CHEAP, MID, DEAR], [AUTO], unknown_model="auto"))
    assert resolve(of, "gpt-9").route == "auto"
    assert names(resolve(of, "mid").candidates) == ["mid"]
    with pytest.raises(ModelNotFound):
        resolve(of, "tier:9")


def test_a_limited_key_may_use_its_routes_and_nothing_else() -> None:
    of = view(policy([CHEAP, MID, DEAR], [AUTO]))
    limited, free = Key("k", "", routes=("auto",)), Key("f", "")
    assert resolve(of, "auto", limited).route == "auto"
    assert resolve(of, "cheap", free).candidates == (CHEAP,)
    for bad in ("cheap", "tier:1", "nobody"):
        with pytest.raises(Forbidden):
            resolve(of, bad, limited)
    with pytest.raises(Forbidden):
        resolve(of, "auto", Key("none", "", routes=()))
    home = view(policy([CHEAP, MID, DEAR], [AUTO], unknown_model="auto"))
    assert resolve(home, "nobody", limited).route == "auto"
    with pytest.raises(Forbidden):
        resolve(home, "cheap", limited)


def test_the_routes_rules_go_with_the_decision() -> None:
    route = Route("auto", ("cheap",), retries=Retries(attempts=5))
    assert choose(view(policy([CHEAP], [route]))).retries.attempts == 5


outcomes = st.sampled_from(["capable", "open", "no tools", "unpriced"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(outcomes, st.floats(0, 1), st.integers(0, 10**9)), min_size=1, max_size=6),
    st.data(),
    st.floats(0, 1),
)
def test_a_decision_is_pure_and_never_names_one_who_is_ruled_out(
    arms: list[tuple[str, float, int]], data: st.DataObject, adequacy: float
) -> None:
    models = [
        model(f"m{i}", None if what == "unpriced" else rate, tools=False if what == "no tools" else None)
        for i, (what, _, rate) in enumerate(arms)
    ]
    every = [m.name for m in models]
    primaries = tuple(data.draw(st.lists(st.sampled_from(every), unique=True, min_size=1)))
    fallback = tuple(data.draw(st.lists(st.sampled_from(every), unique=True)))
    scores = {f"m{i}": (p, 50.0) for i, (_, p, _) in enumerate(arms)}
    of = view(policy(models, [Route("auto", primaries, adequacy=adequacy, fallback=fallback)]), scores)
    open_ = tuple(f"m{i}" for i, (what, _, _) in enumerate(arms) if what == "open")
    asked = request(prompt={"tools": 2})
    before = copy.deepcopy(asked)
    try:
        decision = choose(of, asked, open_=open_, capped=True)
    except BursarError:
        assert all(arms[int(name[1:])][0] != "capable" for name in (*primaries, *fallback))
        return
    assert asked == before
    again = choose(of, asked, open_=open_, capped=True)
    assert (again.order, again.spare, verdicts(again)) == (decision.order, decision.spare, verdicts(decision))
    placed = names((*decision.order, *decision.spare))
    assert len(set(placed)) == len(placed)
    assert set(placed) == {n for n in {*primaries, *fallback} if arms[int(n[1:])][0] == "capable"}
    usable = [n for n in primaries if n in placed] or placed
    adequate = [n for n in usable if scores[n][0] >= adequacy]
    assert decision.chosen.name in (adequate or usable)
    costs = {seen.candidate.name: seen.expected_nano for seen in decision.considered}
    if adequate:
        assert costs[decision.chosen.name] == min(costs[n] or 0 for n in adequate)
    else:
        assert scores[decision.chosen.name][0] == max(scores[n][0] for n in usable)
    assert names(decision.order)[1:] == [n for n in fallback if n in placed and n != decision.chosen.name]
