"""A client that names whom to ask next (`models`), and who may serve it (`provider`), as OpenRouter's clients do."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import BadRequest, BursarError, ModelNotFound, NoCandidate
from app.core.tokens import Ratio
from app.core.types import Placement
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_responses.parse import parse_responses
from app.gateway.placement import misplaced, placed
from tests.gateway.live import Answer, Live, policy
from tests.gateway.policy_values import model, provider, request
from tests.gateway.test_at_a_time import key
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

DOWN = Script(status=503)
ASK = b'"messages":[{"role":"user","content":"Hi"}]'


def parsed(members: str) -> Any:
    return parse_chat(b"{" + ASK + b"," + members.encode() + b"}")


def test_the_first_is_asked_and_each_once() -> None:
    asked = parsed('"model": "a", "models": ["a", "b", "c", "b"]')
    assert (asked.model, asked.others, "models" in asked.members) == ("a", ("b", "c"), False)
    alone = parsed('"models": ["b", "c"]')
    assert (alone.model, alone.others) == ("b", ("c",))
    assert parsed('"model": "a", "models": null').others == ()
    responses = parse_responses(b'{"models": ["b", "c"], "input": "Hi"}', {})
    assert (responses.model, responses.others) == ("b", ("c",))


@pytest.mark.parametrize(
    ("members", "error", "param"),
    [
        ('"models": []', BadRequest, "model"),
        ('"model": "a", "models": "b"', BadRequest, "models"),
        ('"model": "a", "models": [1]', BadRequest, "models[0]"),
        ('"model": "a", "models": [""]', BadRequest, "model"),
        (f'"model": "a", "models": ["{"b" * 300}"]', ModelNotFound, "model"),
        (f'"models": {[f"m{n}" for n in range(17)]}'.replace("'", '"'), BadRequest, "models"),
        ('"model": "a", "provider": {"only": "b"}', BadRequest, "provider.only"),
        (f'"model": "a", "provider": {{"ignore": {["b"] * 101}}}'.replace("'", '"'), BadRequest, "provider.ignore"),
        (f'"model": "a", "provider": {{"only": ["{"b" * 257}"]}}', BadRequest, "provider.only"),
        ('"model": "a", "provider": {"max_price": {"prompt": -1}}', BadRequest, "provider.max_price.prompt"),
    ],
)
def test_what_is_wrong_is_named(members: str, error: type[BursarError], param: str) -> None:
    with pytest.raises(error) as caught:
        parsed(members)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ('{"sort": "price", "allow_fallbacks": true, "order": ["b"]}', None),
        ('"anything"', None),
        ("null", None),
        ('{"data_collection": "allow", "zdr": false}', None),
        ('{"only": ["B", "c"], "ignore": ["D"]}', Placement(("b", "c"), ("d",))),
        ('{"order": ["b"], "allow_fallbacks": false}', Placement(("b",))),
        ('{"max_price": {"prompt": 1, "completion": "2.5"}}', Placement(None, (), 10**9, 25 * 10**8)),
        ('{"max_price": {"request": 0.1}}', Placement(promises=("max_price",))),
        ('{"data_collection": "deny", "zdr": true}', Placement(promises=("data_collection", "zdr"))),
        ('{"quantizations": ["fp8"]}', Placement(promises=("quantizations",))),
    ],
)
def test_what_restricts_who_may_serve_is_read(said: str, meant: Placement | None) -> None:
    assert parsed(f'"model": "a", "provider": {said}').prompt.placement == meant


AT_ROUTER = provider("or", openrouter=True)


@pytest.mark.parametrize(
    ("placement", "candidate", "why"),
    [
        (Placement(only=("p",)), model("m"), None),
        (Placement(only=("q",)), model("m"), "not one of the providers"),
        (Placement(ignore=("p",)), model("m"), "rules out"),
        (Placement(max_input_rate=1_000_000, max_output_rate=1_000_000), model("m"), None),
        (Placement(max_output_rate=999_999), model("m"), "above provider.max_price"),
        (Placement(max_input_rate=10**9), model("m", None), "unpriced"),
        (Placement(promises=("data_collection",)), model("m"), "cannot promise what provider.data_collection"),
        (Placement(only=("q",), promises=("zdr",)), model("m", at=AT_ROUTER), None),
    ],
)
def test_who_may_serve(placement: Placement, candidate: Any, why: str | None) -> None:
    found = misplaced(request(prompt={"placement": placement}), candidate, 10)
    assert found is None if why is None else why in (found or "")


def test_openrouter_does_not_see_the_words_of_other_dialects() -> None:
    asked = request(dialect="openai_responses", prompt={"placement": Placement(promises=("zdr",))})
    assert misplaced(asked, model("m", at=AT_ROUTER), 10) == "cannot promise what provider.zdr asks for"


def test_a_dearer_tier_of_service_is_dearer() -> None:
    cheap = model("m")
    assert cheap.price is not None
    tiers = dataclasses.replace(cheap.price, service_tiers=(("priority", cheap.price.times(Decimal(2))),))
    candidate = dataclasses.replace(cheap, price=tiers)
    for tier, why in ((None, None), ("priority", "above provider.max_price")):
        placement = Placement(max_input_rate=1_500_000)
        asked = request(prompt={"placement": placement, "service_tier": tier})
        assert misplaced(asked, candidate, 10) == why


def test_of_a_models_copies_those_that_may() -> None:
    here, there = model("m"), model("m", at=provider("q"))
    both = dataclasses.replace(here, copies=(here, there))
    asked = request(prompt={"placement": Placement(only=("q",))})
    assert misplaced(asked, both, 10) is None
    assert placed(asked, both, 10).copies == (there,)


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers["x-bursar-model"]


async def test_the_next_is_asked_where_one_fails(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream(DOWN) as bad, ScriptedUpstream(Script.of(words("Mine."))) as own:
        rules = policy({"bad": bad, "good": upstream, "own": own})
        async with Live(tmp_path, rules) as live:
            answer = await live.chat(model="bad", models=["bad", "good", "own"])
            assert told(answer) == (200, "good")
            assert "models" not in upstream.requests[0].body
            record = await live.client.decision(answer.request_id)
            assert [one["model"] for one in record["attempts"]][-1] == "good"
            assert record["decision"]["reason"] == "the client named these models, in this order"
            assert told(await live.chat(model="own", models=["good"])) == (200, "own"), "none where it does not fail"
            routed = await live.chat(model="bad", models=["auto", "own"])
            assert told(routed) == (200, "good"), "a route stands for its models in their order"
            first = await live.chat(model="auto", models=["own"])
            assert told(first) == (200, "own"), "before the route's own fallback"


async def test_a_name_that_is_none_or_not_allowed_is_refused(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    keys = [key("ann", routes=["auto"]), key("bob")]
    async with Live(tmp_path, policy({"a": upstream, "b": upstream}, keys=keys)) as live:
        ann, bob = ({"authorization": f"Bearer sk-{name}"} for name in ("ann", "bob"))
        unknown = await live.chat(model="a", models=["nobody"], headers=bob)
        assert (unknown.status, unknown.error and unknown.error["param"]) == (404, "models")
        no = await live.chat(model="auto", models=["b"], headers=ann)
        assert (no.status, no.error and no.error["param"]) == (403, "models")
        assert not upstream.requests


async def test_a_name_of_the_asked_models_provider(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """OpenRouter's own ids, under one price each and without its own fallback on top."""

    def answer(asked: Any) -> Script:
        return DOWN if asked.model == "x/one" else Script.of(words("Two."))

    upstream.source = answer
    rules = policy({"or": upstream}, providers={"or": {"any_model": True, "free": True}})
    async with Live(tmp_path, rules) as live:
        answered = await live.chat(model="or/x/one", models=["y/two"])
        assert told(answered) == (200, "or/y/two")
        assert [(one.model, "models" in one.body) for one in upstream.requests][-1] == ("y/two", False)


@pytest.mark.parametrize("stream", [True, False])
async def test_who_may_not_serve_is_passed_over(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    with ScriptedUpstream(Script.of(words("B."))) as other:
        async with Live(tmp_path, policy({"a": upstream, "b": other})) as live:
            served = await live.chat(model="auto", stream=stream, provider={"only": ["b"]})
            assert told(served) == (200, "b")
            record = await live.client.decision(served.request_id)
            verdicts = {one["model"]: one["verdict"] for one in record["decision"]["candidates"]}
            assert verdicts["a"] == "not one of the providers that the client allows"
            for member in ({"data_collection": "deny"}, {"max_price": {"prompt": 0}}, {"only": ["nobody"]}):
                no = await live.chat(model="auto", stream=stream, provider=member)
                assert (no.status, no.error_code) == (400, NoCandidate.code)
                assert no.error is not None
                assert no.error["param"] == "provider"
            assert not upstream.requests
            assert (await live.chat(model="a", provider={"sort": "price"})).status == 200


async def test_a_models_copies_are_judged_by_its_own_tokens(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """By those of the model before it no copy was left, and one that is ruled out was asked."""
    long = [{"above_tokens": 1_000, "input_per_1k": 1, "output_per_1k": 1}]
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "tiers": long}
    with ScriptedUpstream(DOWN) as bad, ScriptedUpstream(Script.of(words("B."))) as other:
        models = {"a": {"also_at": ["b"], "pricing": pricing}}
        routes = {"auto": {"candidates": ["bad"], "fallback": ["a"]}}
        rules = policy({"bad": bad, "a": upstream, "b": other}, models=models, routes=routes)
        async with Live(tmp_path, rules) as live:
            live.services.calibration("bad").input = Ratio(1_000.0, 0.0)
            answer = await live.chat(model="auto", provider={"ignore": ["a"], "max_price": {"prompt": 5}})
            assert (answer.status, answer.headers["x-bursar-provider"]) == (200, "b")
            assert (len(bad.requests) > 0, len(upstream.requests)) == (True, 0)
