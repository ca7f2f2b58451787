"""The official OpenAI SDKs, unmodified, against the gateway: Python (sync and async) and Node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests import node_sdk
from tests.http.live import LiveGateway, sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_script import CLOSE, ListPrice, Script, text, tool, words

pytestmark = pytest.mark.usefixtures("upstream")

KEY = "sk-bursar-sdk"
SAY: Any = [{"role": "user", "content": "Say hello."}]
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
PRICE = ListPrice("0.0001", "0.0004")


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers: {{a: {{base_url: "{shared_upstream.url}"}}}}
models:
  small: {{provider: a, upstream_model: small-v1, pricing: {{input_per_1k: 0.0001, output_per_1k: 0.0004}}}}
  embedder: {{provider: a, embeddings: true, pricing: {{input_per_1k: 0.0001, output_per_1k: 0}}}}
routes: {{auto: {{candidates: [small]}}}}
keys: [{{name: sdk, sha256: {sha256(KEY)}}}]
"""
    with LiveGateway(policy, tmp_path_factory.mktemp("sdk")) as live:
        yield live


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.url, api_key=KEY, timeout=20) as made:
        yield made


def told(stream: openai.Stream[ChatCompletionChunk]) -> tuple[str, openai.APIError | None]:
    """What a stream says, and the error that ends it."""
    said = ""
    try:
        for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        return said, error
    return said, None


class TestPython:
    def test_whole(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=SAY)
        answer = raw.parse()
        assert answer.choices[0].message.content == "Hello from the scripted upstream."
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        cost = upstream.bill(PRICE) / 1e9
        assert (answer.usage.completion_tokens, answer.usage.model_extra) == (5, {"cost": cost})
        assert float(raw.headers["x-bursar-cost-usd"]) == cost
        assert answer._request_id == raw.headers["x-bursar-request-id"]

    def test_streamed(self, client: OpenAI) -> None:
        stream = client.chat.completions.create(
            model="auto", messages=SAY, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
            "Hello from the scripted upstream."
        )
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.model_extra is not None
        assert chunks[-1].usage.model_extra["cost"] > 0
        assert not [c for c in client.chat.completions.create(model="auto", messages=SAY, stream=True) if c.usage]

    def test_the_streaming_helper_puts_tool_calls_together(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(tool(id="c1", name="look"), tool('{"a"'), tool(": 1}"))
        with client.chat.completions.stream(model="auto", messages=SAY, tools=[LOOK]) as stream:
            final = stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls is not None
        assert (calls[0].function.name, calls[0].function.arguments) == ("look", '{"a": 1}')
        assert final.choices[0].finish_reason == "tool_calls"
        assert upstream.requests[0].body["tools"] == [LOOK]

    def test_structured_outputs_are_parsed(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        class City(BaseModel):
            name: str
            people: int

        upstream.source = Script.of(text('{"name": "Ghent",'), text(' "people": 270000}'))
        answer = client.chat.completions.parse(model="auto", messages=SAY, response_format=City)
        assert answer.choices[0].message.parsed == City(name="Ghent", people=270_000)
        sent = upstream.requests[0].body["response_format"]
        assert (sent["type"], sent["json_schema"]["strict"]) == ("json_schema", True)

    def test_embeddings(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        answer = client.embeddings.create(model="embedder", input=["one", "two"])
        assert [len(row.embedding) for row in answer.data] == [8, 8]
        assert answer.data[1].embedding[0] == 2.0
        assert upstream.requests[0].body["encoding_format"] == "base64"  # the SDK's default
        assert answer.usage.model_extra is not None
        assert answer.usage.model_extra["cost"] > 0

    def test_text_completions(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("go on like this"))
        answer = client.completions.create(model="auto", prompt=["Let us ", "I will "], suffix=".", max_tokens=9, n=1)
        assert [choice.text for choice in answer.choices] == ["go on like this"] * 2
        assert answer.usage is not None
        assert answer.usage.model_extra is not None
        assert answer.usage.model_extra["cost"] > 0
        usage: Any = {"include_usage": True}
        stream = client.completions.create(model="auto", prompt=[1, 2, 3], stream=True, stream_options=usage)
        chunks = list(stream)
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "go on like this"
        told = chunks[-1].usage
        assert told is not None
        assert told.completion_tokens == 4
        assert told.model_extra is not None
        assert told.model_extra["cost"] > 0
        capped = {"max_cost_usd": 0.0000001}
        with pytest.raises(openai.APIStatusError) as denied:
            client.completions.create(model="auto", prompt="Let us", extra_body=capped)
        assert (denied.value.status_code, denied.value.code) == (402, "budget_exceeded")

    def test_models(self, client: OpenAI) -> None:
        assert [model.id for model in client.models.list()] == ["auto", "small", "embedder"]
        assert client.models.retrieve("small").owned_by == "a"

    def test_errors_have_their_types(self, client: OpenAI, gateway: LiveGateway) -> None:
        with pytest.raises(openai.AuthenticationError) as unknown:
            OpenAI(base_url=gateway.url, api_key="sk-other").chat.completions.create(model="auto", messages=SAY)
        assert (unknown.value.code, unknown.value.type) == ("invalid_api_key", "invalid_request_error")
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="nothing", messages=SAY)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(model="auto", messages=[])
        assert bad.value.param == "messages"
        assert bad.value.request_id is not None
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nothing")

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_denial_is_one_call(self, client: OpenAI, gateway: LiveGateway, stream: bool) -> None:
        before = _denials(gateway)
        with pytest.raises(openai.APIStatusError) as denied:
            client.chat.completions.create(
                model="auto", messages=SAY, stream=stream, extra_body={"max_cost_usd": 0.0000001}
            )
        error = denied.value
        assert (error.status_code, error.code, error.type) == (402, "budget_exceeded", "insufficient_quota")
        assert error.response.headers["x-bursar-scope"] == "request"
        assert _denials(gateway) == before + 1

    def test_a_cut_is_an_error_in_the_stream_and_no_more_calls(
        self, client: OpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.source = Script.of(words("w " * 200), obeys_limit=False, delay_s=0.005)
        headers = {"x-bursar-task-id": "cut-by-sdk", "x-bursar-task-max-cost-usd": "0.00004"}
        said, cut = told(client.chat.completions.create(model="auto", messages=SAY, stream=True, extra_headers=headers))
        assert cut is not None
        assert (cut.code, cut.type) == ("budget_exceeded", "insufficient_quota")
        assert said.startswith("w w")
        assert len(upstream.requests) == 1
        with pytest.raises(openai.APIStatusError) as after:
            client.chat.completions.create(model="auto", messages=SAY, extra_headers=headers)
        assert after.value.status_code == 402
        assert len(upstream.requests) == 1

    def test_a_dead_upstream_is_an_error_in_the_stream(self, client: OpenAI, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("half an"), CLOSE)
        said, broken = told(client.chat.completions.create(model="auto", messages=SAY, stream=True))
        assert broken is not None
        assert (said, broken.code) == ("half an", "upstream_error")

    def test_many_at_once_and_async(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        async def whole(client: AsyncOpenAI) -> str | None:
            return (await client.chat.completions.create(model="auto", messages=SAY)).choices[0].message.content

        async def streamed(client: AsyncOpenAI) -> str:
            stream = await client.chat.completions.create(model="auto", messages=SAY, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def everything() -> list[str | None]:
            async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, timeout=20) as client:
                with pytest.raises(openai.APIStatusError):
                    await client.chat.completions.create(model="auto", messages=SAY, extra_body={"max_cost_usd": 0})
                embedded = await client.embeddings.create(model="embedder", input="x")
                assert len(embedded.data) == 1
                return await asyncio.gather(*(ask(client) for ask in (whole, streamed) * 20))

        assert set(asyncio.run(everything())) == {"Hello from the scripted upstream."}
        assert len(upstream.requests) == 41


def _denials(gateway: LiveGateway) -> float:
    lines = [line for line in gateway.metrics().splitlines() if line.startswith("bursar_denials_total{")]
    return sum(float(line.split()[-1]) for line in lines)


class TestNode:
    @pytest.fixture(autouse=True)
    def node(self) -> None:
        try:
            node_sdk.installed()
        except node_sdk.NodeUnavailable as error:
            pytest.skip(str(error))

    def chat(self, gateway: LiveGateway, mode: node_sdk.Mode, **options: Any) -> dict[str, Any]:
        return node_sdk.chat(gateway.url, mode, api_key=KEY, **options)

    def test_whole_and_streamed_answers_agree(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        plain = self.chat(gateway, "plain")
        stream = self.chat(gateway, "stream-usage")
        for seen in (plain, stream):
            assert (seen["text"], seen["finish_reason"]) == ("Hello from the scripted upstream.", "stop")
            assert (seen["model"], seen["attempts"], seen["error"]) == ("small-v1", 1, None)
            assert seen["usage"]["cost"] == upstream.requests[0].tokens.bill(PRICE) / 1e9
            assert seen["headers"]["x-bursar-model"] == "small"
        assert len(upstream.requests) == 2
        assert self.chat(gateway, "stream")["usage"] is None

    def test_tools(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(tool(id="c1", name="look"), tool('{"what":'), tool('"up"}'))
        seen = self.chat(gateway, "tools")
        assert seen["tool_calls"] == [{"id": "c1", "name": "look", "arguments": '{"what":"up"}'}]

    def test_a_denial_is_one_attempt(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        seen = self.chat(gateway, "denied", body={"max_cost_usd": 0})
        assert (seen["error"]["status"], seen["error"]["code"], seen["attempts"]) == (402, "budget_exceeded", 1)
        assert seen["error"]["headers"]["x-bursar-scope"] == "request"
        assert not upstream.requests

    def test_a_cut_is_one_attempt(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 200), obeys_limit=False, delay_s=0.005)
        seen = self.chat(gateway, "cut", body={"max_cost_usd": 0.00004})
        assert seen["text"].startswith("w w")
        assert (seen["error"]["code"], seen["error"]["api_error"], seen["attempts"]) == ("budget_exceeded", True, 1)
        assert seen["finish_reason"] is None
        assert seen["usage"]["cost"] >= 0.00004
        assert len(upstream.requests) == 1

    def test_a_wrong_key_and_an_unknown_model(self, gateway: LiveGateway) -> None:
        wrong = node_sdk.chat(gateway.url, "plain", api_key="sk-other")
        assert (wrong["error"]["name"], wrong["attempts"]) == ("AuthenticationError", 1)
        unknown = self.chat(gateway, "stream", model="nothing")
        assert (unknown["error"]["name"], unknown["error"]["code"]) == ("NotFoundError", "model_not_found")


def test_curl_like_keep_alive(gateway: LiveGateway) -> None:
    """Several requests over one connection, streams and errors between them."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    statuses = []
    for body in (
        {"model": "auto", "messages": SAY},
        {"model": "auto", "messages": SAY, "stream": True},
        {"model": "nothing", "messages": SAY},
        {"model": "auto", "messages": SAY, "max_cost_usd": 0},
        {"model": "auto", "messages": SAY},
    ):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        sock = connection.sock
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        assert connection.sock is sock
    connection.close()
    assert statuses == [200, 200, 404, 402, 200]


def test_azures_client(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """It names the model in the path, and the key in a header of its own."""
    upstream.source = Script.of(words("Hello to Azure."))
    endpoint = gateway.url.removesuffix("/v1")
    with AzureOpenAI(azure_endpoint=endpoint, api_key=KEY, api_version="2024-10-21", timeout=20) as azure:
        whole = azure.chat.completions.create(model="auto", messages=SAY)
        assert whole.choices[0].message.content == "Hello to Azure."
        said, error = told(azure.chat.completions.create(model="auto", messages=SAY, stream=True))
        assert (said, error) == ("Hello to Azure.", None)
        assert azure.embeddings.create(model="embedder", input="Say it.").data
        assert azure.responses.create(model="auto", input="Say hello.").output_text == "Hello to Azure."
        with pytest.raises(openai.NotFoundError) as lost:
            azure.chat.completions.create(model="none", messages=SAY)
        assert lost.value.code == "model_not_found"
