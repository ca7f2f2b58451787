"""What the gateway sees of answers, over every way they come: in records, without a word of theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from app.core.policy import Key
from app.core.secret import Secret
from app.gateway.seen import _REFUSAL, salted_by
from app.salt import keep_asking
from app.stores.snapshots import SnapshotsUnavailable
from tests.gateway.policy_values import model, policy, provider
from tests.http.live import SAY, Answer, LiveGateway, contract
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, text, tool, words

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "ls",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    }
]
WANTED = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
SHAPE = {"type": "json_schema", "json_schema": {"name": "n", "schema": WANTED}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(contract(upstream), tmp_path_factory.mktemp("seen")) as live:
        yield live


def seen(gateway: LiveGateway, answer: Answer) -> dict[str, Any]:
    assert answer.status == 200
    found: dict[str, Any] = gateway.decision(answer)["seen"]
    return found


def chat(gateway: LiveGateway, stream: bool, **body: Any) -> dict[str, Any]:
    return seen(gateway, gateway.chat(stream=stream, **body))


def messages(gateway: LiveGateway, stream: bool, **body: Any) -> dict[str, Any]:
    asked = {"model": "small", "max_tokens": 500, "messages": SAY, "stream": stream, **body}
    return seen(gateway, gateway.ask("POST", "/v1/messages", asked, {"anthropic-version": "2023-06-01"}))


EACH_WAY = pytest.mark.parametrize("stream", [True, False])


@EACH_WAY
@pytest.mark.parametrize("ask", [chat, messages])
def test_a_plain_answer_and_a_refusal(gateway: LiveGateway, upstream: ScriptedUpstream, ask: Any, stream: bool) -> None:
    upstream.source = Script.of(words("Here you are, with pleasure"))
    plain = ask(gateway, stream)
    assert plain["finish"] == "stop"
    assert not {"refused", "empty", "shape_ok", "arguments_ok", "calls", "tool_failed"} & plain.keys()
    assert plain["rate_nano"] == 175_000_000  # three dollars' tenths of input to four of output, per million
    upstream.source = Script.of(words("I'm sorry, but I can't help with that."))
    refused = ask(gateway, stream)
    assert refused["refused"] is True
    assert refused["asked"] == plain["asked"]
    assert "sorry" not in json.dumps(refused)


@EACH_WAY
def test_json_that_was_asked_for(gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool) -> None:
    for said, ok in (('{"n": 3}', True), ('{"n": "3"}', False), ("Sure: 3", False)):
        upstream.source = Script.of(words(said))
        assert chat(gateway, stream, response_format=SHAPE)["shape_ok"] is ok
    upstream.source = Script.of(words('{"n": "3"}'))
    assert chat(gateway, stream, response_format={"type": "json_object"})["shape_ok"] is True


@EACH_WAY
@pytest.mark.parametrize(
    ("name", "arguments", "ok"),
    [("ls", '{"path": "a"}', True), ("ls", '{"file": "a"}', False), ("ls", "", False), ("rm", "{}", False)],
)
def test_tool_calls(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool, name: str, arguments: str, ok: bool
) -> None:
    halves = arguments[:5], arguments[5:]
    upstream.source = Script.of(tool(halves[0], id="c1", name=name), tool(halves[1]))
    found = chat(gateway, stream, tools=TOOLS)
    assert found["arguments_ok"] is ok
    assert found["calls"]
    again = chat(gateway, stream, tools=TOOLS, messages=[*SAY, *SAY])
    assert again["calls"] == found["calls"]
    assert (again["began"], again["asked"] == found["asked"]) == (found["began"], False)
    offered = [{"name": "ls", "input_schema": TOOLS[0]["function"]["parameters"]}]
    assert messages(gateway, stream, tools=offered)["arguments_ok"] is ok


@pytest.mark.parametrize(
    ("result", "failed"), [("Error: no such file", True), ("a.txt b.txt", False), ("\n Traceback (most recent", True)]
)
def test_a_tool_that_failed(gateway: LiveGateway, upstream: ScriptedUpstream, result: str, failed: bool) -> None:
    upstream.source = Script.of(words("I see"))
    call = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
    talk = [
        *SAY,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]
    assert chat(gateway, False, messages=talk, tools=TOOLS).get("tool_failed", False) is failed


def test_what_is_too_long_to_judge_is_not_judged(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(text('{"n": "' + "x" * 70_000 + '"}'))
    assert "shape_ok" not in chat(gateway, True, response_format=SHAPE)


@pytest.mark.parametrize(
    "opening",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I cannot do that.",
        "Sorry, I won't be able to share this.",
        "I cannot help with creating that.",
        "As an AI language model, I can't provide medical advice.",
        "Unfortunately, I am unable to help you with this.",
        "I must decline to answer.",
    ],
)
def test_openings_of_refusals(opening: str) -> None:
    assert _REFUSAL.match(opening)


@pytest.mark.parametrize(
    "opening",
    [
        "Sorry for the late reply: here is the plan.",
        "I can help with that.",
        "I can't wait to show you this recipe!",
        "Unfortunately, the file does not exist; create it first.",
        "As an AI engineer, you will write code.",
        "The character says: I cannot help you.",
    ],
)
def test_openings_of_answers(opening: str) -> None:
    assert not _REFUSAL.match(opening)


def test_what_a_call_that_did_not_complete_showed_is_nobodys(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(500)
    answer = gateway.chat()
    assert answer.status >= 500
    assert gateway.decision(answer)["seen"] is None


def test_a_request_is_known_again_when_providers_and_their_secrets_have_changed(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.source = Script.of(words("Yes."))
    rules = contract(upstream)
    other = rules.replace("providers:", 'providers:\n  more: {base_url: "http://127.0.0.1:9", api_key: "sk-new"}', 1)
    assert other != rules
    found = []
    for each in (rules, other):
        with LiveGateway(each, tmp_path) as live:
            found.append(seen(live, live.chat()))
    assert found[0]["asked"] == found[1]["asked"]
    assert found[0]["began"] == found[1]["began"]


async def test_while_the_store_of_the_salt_does_not_answer_the_policys_secrets_stand_in() -> None:
    class Store:
        asked = 0

        async def salt(self) -> bytes:
            self.asked += 1
            if self.asked < 3:
                raise SnapshotsUnavailable("away")
            return b"s" * 32

    class Holder:
        salt: bytes | None = None

    store: Any = Store()
    services: Any = Holder()
    with patch("app.salt.AGAIN_S", 0.0):
        await keep_asking(services, store)
    assert (services.salt, store.asked) == (b"s" * 32, 3)


def test_a_new_key_changes_no_hash_and_a_new_secret_changes_all() -> None:
    """Else requests would not be known again where keys come and go."""

    def salted(secret: str | None, *names: str) -> str:
        of = provider(api_key=None if secret is None else Secret(secret))
        keys = {name: Key(name, name) for name in names}
        return salted_by(policy([model("small", at=of)], keys=keys)).hexdigest()

    assert salted("s", "alice") == salted("s", "alice", "bob")
    assert len({salted("s", "alice"), salted("t", "alice"), salted(None, "alice"), salted(None, "bob")}) == 4
