"""LangChain's OpenAI client and litellm as a client, and the Python SDKs' structured output, against the gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as gemini_types
from pydantic import BaseModel, SecretStr

from tests.http.live import LiveGateway, sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import ListPrice, Script, text, tool, words

KEY = "sk-bursar-frameworks"
PRICE = ListPrice("0.001", "0.002")
SAID = "One two three four."


class City(BaseModel):
    """What is asked for where a shape is."""

    name: str
    people: int


GHENT = City(name="Ghent", people=270_000)


def look(what: str) -> str:
    """Look something up."""
    return what


def answer(received: Received) -> Script:
    """What the prompt's last word asks for."""
    said = received.body["messages"][-1]["content"]
    prompt = said if isinstance(said, str) else said[-1]["text"]
    if prompt == "tools":
        return Script.of(tool(id="call_a", name="look"), tool('{"what":'), tool('"up"}'), input_tokens=12)
    if prompt == "json":
        if received.body.get("tools"):
            (offered,) = received.body["tools"]
            name = offered["function"]["name"]
            return Script.of(tool(id="call_a", name=name), tool('{"name": "Ghent", "people": 270000}'))
        return Script.of(text('{"name": "Ghent",'), text(' "people": 270000}'))
    if prompt == "cut":
        return Script.of(words("w " * 2000), input_tokens=12, obeys_limit=False, delay_s=0.001)
    return Script.of(words(SAID), input_tokens=12)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(answer) as live:
        yield live


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: a, pricing: {{input_per_1k: 0.001, output_per_1k: 0.002}}, budgets: {{max_cost_usd: 0}}}}}}
routes: {{auto: {{candidates: [m]}}}}
keys: [{{name: frameworks, sha256: {sha256(KEY)}}}]
"""
    with LiveGateway(policy, tmp_path_factory.mktemp("frameworks")) as live:
        yield live


@pytest.fixture(autouse=True)
def plain(upstream: ScriptedUpstream) -> None:
    upstream.requests.clear()


def spent(gateway: LiveGateway, task: str) -> int:
    """What a task was charged, in nano-dollars."""
    found = gateway.ask("GET", f"/v1/tasks/{task}", headers={"authorization": f"Bearer {KEY}"}).json
    spent_usd: float = found["spent_usd"]
    return round(spent_usd * 10**9)


def headers_of(task: str, cap_usd: float | None = None) -> dict[str, str]:
    """The task that calls belong to, and its cap."""
    capped = {} if cap_usd is None else {"X-Bursar-Task-Max-Cost-Usd": f"{cap_usd:.9f}"}
    return {"X-Bursar-Task-Id": task, **capped}


def until_it_breaks(pieces: Iterator[str]) -> tuple[str, Exception | None]:
    """What a stream says, and what is raised at its end."""
    said = ""
    try:
        for piece in pieces:
            said += piece
    except Exception as error:
        return said, error
    return said, None


class TestLangChain:
    @pytest.fixture(params=[False, True], ids=["chat", "responses"])
    def model(self, request: pytest.FixtureRequest, gateway: LiveGateway) -> Any:
        from langchain_openai import ChatOpenAI

        def made(task: str, cap_usd: float | None = None) -> Any:
            return ChatOpenAI(
                model="m", base_url=gateway.url, api_key=SecretStr(KEY), use_responses_api=request.param,
                stream_usage=True, default_headers=headers_of(task, cap_usd),
            )  # fmt: skip

        made.kind = "responses" if request.param else "chat"  # type: ignore[attr-defined]
        return made

    def test_whole_streamed_tools_and_shaped(
        self, model: Any, gateway: LiveGateway, upstream: ScriptedUpstream
    ) -> None:
        task = f"lc-{model.kind}"
        chat = model(task)
        whole = chat.invoke("say")
        assert (whole.text, whole.usage_metadata["input_tokens"], whole.usage_metadata["output_tokens"]) == (
            SAID,
            12,
            4,
        )
        pieces = list(chat.stream("say"))
        together = pieces[0]
        for piece in pieces[1:]:
            together += piece
        assert (together.text, together.usage_metadata["output_tokens"]) == (SAID, 4)
        (call,) = chat.bind_tools([look]).invoke("tools").tool_calls
        assert (call["name"], call["args"]) == ("look", {"what": "up"})
        assert chat.with_structured_output(City).invoke("json") == GHENT
        assert len(upstream.requests) == 4
        assert spent(gateway, task) == upstream.bill(PRICE)

    def test_cut_and_denied_in_one_call_each(self, model: Any, upstream: ScriptedUpstream) -> None:
        chat = model(f"lc-cut-{model.kind}", 0.000212)
        said, error = until_it_breaks(piece.text for piece in chat.stream("cut"))
        assert isinstance(error, openai.APIError)
        assert "out of budget" in str(error)
        assert said.startswith("w w")
        with pytest.raises(openai.APIStatusError, match="out of budget") as denied:
            chat.invoke("say")
        assert denied.value.status_code == (400 if model.kind == "responses" else 402)
        assert len(upstream.requests) == 1


class TestLitellm:
    @pytest.fixture
    def asked(self, gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> Any:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
        import litellm

        monkeypatch.setattr(litellm, "suppress_debug_info", True)

        def ask(prompt: str, task: str, cap_usd: float | None = None, **more: Any) -> Any:
            return litellm.completion(
                model="openai/m", api_base=gateway.url, api_key=KEY, extra_headers=headers_of(task, cap_usd),
                messages=[{"role": "user", "content": prompt}], **more,
            )  # fmt: skip

        return ask

    def test_whole_streamed_tools_and_shaped(
        self, asked: Any, gateway: LiveGateway, upstream: ScriptedUpstream
    ) -> None:
        whole = asked("say", "ll")
        assert (whole.choices[0].message.content, whole.usage.completion_tokens) == (SAID, 4)
        pieces = [piece.choices[0].delta.content or "" for piece in asked("say", "ll", stream=True) if piece.choices]
        assert "".join(pieces) == SAID
        offered = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        (call,) = asked("tools", "ll", tools=[offered], _skip_mcp_handler=True).choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == ("look", '{"what":"up"}')
        shaped = asked("json", "ll", response_format=City)
        assert City.model_validate_json(shaped.choices[0].message.content) == GHENT
        assert len(upstream.requests) == 4
        assert spent(gateway, "ll") == upstream.bill(PRICE)

    def test_cut_and_denied_in_one_call_each(self, asked: Any, upstream: ScriptedUpstream) -> None:
        stream = asked("cut", "ll-cut", 0.000212, stream=True)
        said, error = until_it_breaks(piece.choices[0].delta.content or "" for piece in stream)
        assert isinstance(error, openai.APIError)
        assert "out of budget" in str(error)
        assert said.startswith("w w")
        with pytest.raises(openai.APIError, match="out of budget") as denied:
            asked("say", "ll-cut", 0.000212)
        assert getattr(denied.value, "status_code", None) == 402
        assert len(upstream.requests) == 1


class TestStructuredOutput:
    def test_responses(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        with openai.OpenAI(base_url=gateway.url, api_key=KEY) as sdk:
            assert sdk.responses.parse(model="m", input="json", text_format=City).output_parsed == GHENT

    def test_messages(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        base = gateway.url.removesuffix("/v1")
        with anthropic.Anthropic(base_url=base, api_key=KEY) as sdk:
            asked: Any = [{"role": "user", "content": "json"}]
            reply = sdk.messages.parse(model="m", max_tokens=100, messages=asked, output_format=City)
        assert reply.parsed_output == GHENT

    def test_gemini(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        options = gemini_types.HttpOptions(base_url=gateway.url.removesuffix("/v1"))
        sdk = genai.Client(api_key=KEY, http_options=options)
        config = gemini_types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
        assert sdk.models.generate_content(model="m", contents="json", config=config).parsed == GHENT

    @pytest.fixture(autouse=True)
    def asks_for_the_shape(self, upstream: ScriptedUpstream) -> Iterator[None]:
        yield
        (received,) = upstream.requests
        wanted = received.body["response_format"]
        assert (wanted["type"], set(wanted["json_schema"]["schema"]["properties"])) == (
            "json_schema",
            {"name", "people"},
        )
