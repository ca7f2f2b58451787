"""What the official Python SDKs do beyond a plain call: helpers that put streams together, run tools, keep chats and
list models, with a provider of every dialect; and how each of them ends when its call is cut or breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as gemini_errors
from google.genai import types as gemini_types

from tests.gateway.live import OUTPUT_NANO, PRICE, policy, until, usd
from tests.http.live import LiveGateway
from tests.http.test_http_dialects import PATHS
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import CLOSE, Gate, Script, reasoning, tool, words

SAY: Any = [{"role": "user", "content": "Look it up."}]
CAP_NANO = 100 * OUTPUT_NANO
PIECES = [(model, kind) for model in PATHS for kind in ("text", "thinking", "input_json")]
PIECES.remove(("gemini", "input_json"))  # it sends a call's arguments whole
every_provider = pytest.mark.parametrize("model", PATHS)


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        yield live


@pytest.fixture(scope="module")
def near(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """A provider of each dialect, which is a far gateway in front of one scripted model."""
    folder: Path = tmp_path_factory.mktemp("helpers")
    for part in ("far", "near"):
        (folder / part).mkdir()
    with LiveGateway(json.dumps(policy({"m": shared_upstream})), folder / "far") as far:
        base = far.url.removesuffix("/v1")
        urls = {name: base + path for name, path in PATHS.items()}
        providers = {name: {"dialect": name, "base_url": url} for name, url in urls.items()}
        models = {name: {"upstream_model": "m"} for name in urls}
        text = json.dumps(policy(urls, providers=providers, models=models))
        with LiveGateway(text, folder / "near") as live:
            yield live


@pytest.fixture
def base(near: LiveGateway) -> str:
    """The gateway's URL without /v1."""
    return near.url.removesuffix("/v1")


def answer_once(near: LiveGateway, upstream: ScriptedUpstream, model: str) -> None:
    """So that failures are none in a row, which would open a circuit."""
    assert near.chat(model=model).status == 200
    upstream.requests.clear()


def spent(near: LiveGateway, task: str) -> int:
    """What a task was charged, in nano-dollars."""
    spent_usd: float = near.ask("GET", f"/v1/tasks/{task}").json["spent_usd"]
    return round(spent_usd * 10**9)


def until_looked(received: Received) -> Script:
    """A model that looks once, and then says what it saw."""
    if any(message["role"] == "tool" for message in received.body["messages"]):
        return Script.of(words("It is seen."), input_tokens=20)
    return Script.of(tool(id="call_a", name="look"), tool('{"what":'), tool(' "it"}'), input_tokens=12)


def results(received: Received) -> list[str]:
    """What tools have answered in a request."""
    found = [message["content"] for message in received.body["messages"] if message["role"] == "tool"]
    return [said if isinstance(said, str) else said[0]["text"] for said in found]


class TestAnthropic:
    @pytest.fixture
    def made(self, base: str) -> Iterator[Callable[..., anthropic.Anthropic]]:
        clients: list[anthropic.Anthropic] = []

        def client(**headers: str) -> anthropic.Anthropic:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            clients.append(anthropic.Anthropic(base_url=base, api_key="x", default_headers=named, max_retries=0))
            return clients[-1]

        yield client
        for one in clients:
            one.close()

    @every_provider
    @pytest.mark.parametrize("stream", [False, True])
    def test_the_tool_runner_goes_on_without_a_thread(
        self, made: Any, near: LiveGateway, upstream: ScriptedUpstream, model: str, stream: bool
    ) -> None:
        upstream.source = until_looked
        task = f"runner-{model}-{stream}"

        @anthropic.beta_tool
        def look(what: str) -> str:
            """Look something up."""
            return f"seen {what}"

        run = made(x_bursar_task_id=task).beta.messages.tool_runner(
            model=model, max_tokens=500, messages=SAY, tools=[look], stream=stream
        )
        ended = [(turn.get_final_message() if stream else turn) for turn in run]
        assert [turn.stop_reason for turn in ended] == ["tool_use", "end_turn"]
        assert ended[-1].content[0].text == "It is seen."
        assert [results(request) for request in upstream.requests] == [[], ["seen it"]]
        assert spent(near, task) == upstream.bill(PRICE)

    @pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}])
    def test_what_a_provider_would_hold_is_refused_as_clients_of_threads_know_it(
        self, made: Any, upstream: ScriptedUpstream, thread: Any
    ) -> None:
        with pytest.raises(anthropic.BadRequestError) as refused:
            made().messages.create(model="anthropic", max_tokens=9, messages=SAY, extra_body={"thread": thread})
        error: Any = refused.value
        assert error.body["error"]["details"] == {"error_code": "thread_unsupported_request"}
        assert (error.type, error.request_id) == (
            "invalid_request_error",
            error.response.headers["x-bursar-request-id"],
        )
        assert not upstream.requests
        kept = made().messages.create(model="anthropic", max_tokens=9, messages=SAY, extra_body={"thread": None})
        assert kept.content[0].text

    def test_a_parameter_that_a_provider_lacks_is_named_as_the_client_has_it(self, made: Any) -> None:
        asked: Any = {"model": "openai_responses", "max_tokens": 9, "messages": SAY, "stop_sequences": ["x"]}
        with pytest.raises(anthropic.BadRequestError, match="The parameter stop_sequences cannot be followed"):
            made().messages.create(**asked)

    def test_a_message_knows_its_request(self, made: Any, upstream: ScriptedUpstream) -> None:
        raw = made().messages.with_raw_response.create(model="gemini", max_tokens=9, messages=SAY)
        assert raw.parse()._request_id == raw.headers["x-bursar-request-id"]
        with made().messages.stream(model="openai_chat", max_tokens=9, messages=SAY) as stream:
            assert stream.request_id == stream.response.headers["x-bursar-request-id"]
        with pytest.raises(anthropic.NotFoundError) as lost:
            made().models.retrieve("nothing")
        assert lost.value.request_id == lost.value.response.headers["x-bursar-request-id"]

    @pytest.mark.parametrize(("model", "kind"), PIECES)
    @pytest.mark.parametrize("how", ["cut", "broken"])
    def test_the_stream_helper_raises_wherever_it_ends(
        self, made: Any, near: LiveGateway, upstream: ScriptedUpstream, model: str, kind: str, how: str
    ) -> None:
        answer_once(near, upstream, model)
        one: Any = {"text": words, "thinking": lambda said: [reasoning(w) for w in said.split()]}
        begun = [tool(id="c", name="look"), tool('{"what": "')]
        said = [*begun, *[tool("w ")] * 400] if kind == "input_json" else one[kind]("w " * 400)
        upstream.source = (
            Script.of(said, obeys_limit=False, delay_s=0.001, input_tokens=12)
            if how == "cut"
            else Script.of(said[:3], CLOSE)
        )
        offered: Any = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
        seen: list[str] = []
        client = made(x_bursar_max_cost_usd=f"{usd(CAP_NANO + 12_000):.9f}")
        with pytest.raises(anthropic.APIStatusError) as ended:  # noqa: PT012 (a stream's error comes in its middle)
            thinking: Any = {"type": "enabled", "budget_tokens": 1024}
            with client.messages.stream(
                model=model, max_tokens=1500, messages=SAY, tools=[offered], thinking=thinking
            ) as stream:
                seen.extend(event.type for event in stream)
                stream.get_final_message()
        assert kind in seen
        assert ended.value.type == ("billing_error" if how == "cut" else "api_error")
        assert "message_stop" not in seen
        assert len(upstream.requests) == 1


class TestGemini:
    @pytest.fixture
    def made(self, base: str) -> Callable[..., genai.Client]:
        def client(**headers: str) -> genai.Client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return genai.Client(
                api_key="x", http_options=gemini_types.HttpOptions(base_url=base, headers=named, retry_options=None)
            )

        return client

    @pytest.mark.parametrize("version", [None, "v1", "v1beta"])
    def test_models_are_listed_in_its_own_words(self, base: str, version: str | None) -> None:
        client = genai.Client(api_key="x", http_options=gemini_types.HttpOptions(base_url=base, api_version=version))
        assert [model.name for model in client.models.list()] == [f"models/{name}" for name in ("auto", *PATHS)]
        found = client.models.get(model="gemini")
        assert (found.name, found.supported_actions) == (
            "models/gemini",
            ["generateContent", "streamGenerateContent", "countTokens"],
        )
        with pytest.raises(gemini_errors.ClientError) as lost:
            client.models.get(model="nothing")
        assert (lost.value.code, lost.value.status) == (404, "NOT_FOUND")

    @every_provider
    def test_a_chat_calls_functions_by_itself(
        self, made: Any, near: LiveGateway, upstream: ScriptedUpstream, model: str
    ) -> None:
        upstream.source = until_looked

        def look(what: str) -> str:
            """Look something up."""
            return f"seen {what}"

        task = f"chat-{model}"
        client = made(x_bursar_task_id=task)
        chat = client.chats.create(model=model, config=gemini_types.GenerateContentConfig(tools=[look]))
        assert chat.send_message("Look it up.").text == "It is seen."
        assert "".join(part.text or "" for part in chat.send_message_stream("And again?")) == "It is seen."
        assert len(upstream.requests) == 3
        assert "seen it" in results(upstream.requests[1])[0]
        assert spent(near, task) == upstream.bill(PRICE)

    @every_provider
    def test_what_was_cut_is_no_part_of_a_chat(self, made: Any, upstream: ScriptedUpstream, model: str) -> None:
        upstream.source = Script.of(words("w " * 400), obeys_limit=False, delay_s=0.001, input_tokens=12)
        client = made(x_bursar_max_cost_usd=f"{usd(CAP_NANO + 12_000):.9f}")
        chat = client.chats.create(model=model)
        said: list[str] = []
        with pytest.raises(gemini_errors.ClientError) as cut:
            said.extend(part.text or "" for part in chat.send_message_stream("Tell me."))
        assert (cut.value.code, cut.value.status) == (402, "FAILED_PRECONDITION")
        assert "".join(said).startswith("w w")
        assert chat.get_history(curated=True) == []
        assert len(upstream.requests) == 1

    def test_a_parameter_that_a_provider_lacks_is_named_as_the_client_has_it(self, made: Any) -> None:
        client = made()
        for config, name in (({"stop_sequences": ["x"]}, "stopSequences"), ({"candidate_count": 2}, "candidateCount")):
            with pytest.raises(gemini_errors.ClientError) as refused:
                client.models.generate_content(model="openai_responses", contents="Tell me.", config=config)
            (violation,) = refused.value.details["error"]["details"][0]["fieldViolations"]
            assert violation["field"] == f"generationConfig.{name}"
            assert f"The parameter generationConfig.{name} cannot be followed" in violation["description"]


class TestOpenAI:
    @every_provider
    @pytest.mark.parametrize("how", ["cut", "broken"])
    def test_the_stream_helpers_raise_wherever_they_end(
        self, near: LiveGateway, upstream: ScriptedUpstream, model: str, how: str
    ) -> None:
        answer_once(near, upstream, model)
        upstream.source = (
            Script.of(words("w " * 400), obeys_limit=False, delay_s=0.001, input_tokens=12)
            if how == "cut"
            else Script.of(words("w w w"), CLOSE)
        )
        capped = {"max_cost_usd": usd(CAP_NANO + 12_000)}
        code = "budget_exceeded" if how == "cut" else "upstream_error"
        said: list[str] = []

        def chat(client: openai.OpenAI) -> None:
            with client.chat.completions.stream(model=model, messages=SAY, extra_body=capped) as stream:
                said.extend(event.delta for event in stream if event.type == "content.delta")
                stream.get_final_completion()

        def respond(client: openai.OpenAI) -> None:
            with client.responses.stream(model=model, input="Tell me.", extra_body=capped) as stream:
                said.extend(event.delta for event in stream if event.type == "response.output_text.delta")
                stream.get_final_response()

        with openai.OpenAI(base_url=near.url, api_key="x", max_retries=0) as client:
            for ask in (chat, respond):
                said.clear()
                with pytest.raises(openai.APIError) as ended:
                    ask(client)
                assert (ended.value.code, "".join(said)[:3]) == (code, "w w")
        assert len(upstream.requests) == 2

    @every_provider
    def test_a_cancelled_task_of_the_clients_loop_ends_the_call(
        self, near: LiveGateway, upstream: ScriptedUpstream, model: str
    ) -> None:
        gate = Gate()
        gate.release(2)
        upstream.source = Script.of(words("w " * 400), gate=gate, input_tokens=12)
        task = f"cancelled-{model}"

        async def cancelled() -> None:
            async with openai.AsyncOpenAI(base_url=near.url, api_key="x", max_retries=0) as client:
                begun = asyncio.Event()

                async def read() -> None:
                    headers = {"x-bursar-task-id": task}
                    async with client.chat.completions.stream(
                        model=model, messages=SAY, extra_headers=headers
                    ) as stream:
                        async for event in stream:
                            if event.type == "content.delta":
                                begun.set()

                reading = asyncio.create_task(read())
                await begun.wait()
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading

        asyncio.run(cancelled())
        upstream.wait_for_disconnect(0)
        gate.open()
        asyncio.run(until(lambda: near.ask("GET", f"/v1/tasks/{task}").json["running"] == 0))
        bill_nano = upstream.bill(PRICE)
        assert bill_nano <= spent(near, task) < bill_nano + 100_000, "by an estimate, for no usage came"
