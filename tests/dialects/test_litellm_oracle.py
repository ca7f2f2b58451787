"""litellm's translators as a second opinion: it translates between chat and the other three dialects, both ways.

Its output is read by our own parsers and readers and compared with ours. Every difference stands in a table here, with
the reason why ours is kept. Only this module imports litellm (three seconds, 170 MB).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Final
from unittest.mock import MagicMock

import httpx
import pytest

from app.core.events import Done
from app.core.money import Usage
from app.dialects.base import Counts
from app.dialects.registry import CHAT, GEMINI, MESSAGES, RESPONSES, dialect_named
from tests.dialects.pair_requests import SCENARIOS
from tests.dialects.pairs import MODELS, asking, gist, of_origin, parsed, plain, talk_of
from tests.dialects.test_pairs import SCRIPTS, USAGE, WHOLE, kept, seen_by

Body = dict[str, Any]
Translate = Callable[[Body], Any]


class Oracle:
    """litellm's translators, by the dialects that they translate between."""

    def __init__(self) -> None:
        from litellm.completion_extras.litellm_responses_transformation import transformation as to_responses
        from litellm.google_genai.adapters.transformation import GoogleGenAIAdapter
        from litellm.llms.anthropic.chat.transformation import AnthropicConfig
        from litellm.llms.anthropic.pass_through.adapters.transformation import LiteLLMAnthropicMessagesAdapter
        from litellm.llms.gemini.chat.transformation import GoogleAIStudioGeminiConfig
        from litellm.llms.vertex_ai.gemini import transformation as to_gemini
        from litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini import VertexGeminiConfig
        from litellm.responses.litellm_completion_transformation.transformation import LiteLLMCompletionResponsesConfig
        from litellm.types.llms.openai import ResponsesAPIResponse
        from litellm.types.utils import ModelResponse

        untyped: Any = (LiteLLMAnthropicMessagesAdapter, to_responses.LiteLLMResponsesTransformationHandler)
        adapter, bridge = (kind() for kind in untyped)
        claude, google, responses = AnthropicConfig(), GoogleGenAIAdapter(), LiteLLMCompletionResponsesConfig
        studio, vertex = GoogleAIStudioGeminiConfig(), VertexGeminiConfig()

        def chat_to_messages(body: Body) -> Any:
            options = claude.map_openai_params(_without(body, "model", "messages"), {}, MODELS[MESSAGES], True)
            return claude.transform_request(MODELS[MESSAGES], body["messages"], options, {}, {})

        def chat_to_gemini(body: Body) -> Any:
            options = studio.map_openai_params(_without(body, "model", "messages"), {}, MODELS[GEMINI], True)
            return to_gemini.transform_request_body(body["messages"], MODELS[GEMINI], options, "gemini", {}, None)

        def chat_to_responses(body: Body) -> Any:
            options = _without(body, "model", "messages")
            made = bridge.transform_request("gpt-5", body["messages"], options, {}, {}, MagicMock())
            return {name: value for name, value in made.items() if not isinstance(value, MagicMock)}

        def responses_to_chat(body: Body) -> Any:
            options: Any = _without(body, "model", "input")
            return responses.transform_responses_api_request_to_chat_completion_request("m", body["input"], options)

        def gemini_to_chat(body: Body) -> Any:
            rest = _without(body, "contents", "generationConfig")
            config = dict(body["generationConfig"])
            return google.translate_generate_content_to_completion("m", body["contents"], config, **rest)

        def gemini_reply(body: Body) -> Any:
            logged, reply = MagicMock(optional_params={}), httpx.Response(200, json=body)
            made = ModelResponse()
            return vertex.transform_google_generate_content_to_openai_model_response(body, made, "g", logged, reply)

        def responses_reply(body: Body) -> Any:
            made, reply = ModelResponse(), ResponsesAPIResponse(**body)
            return bridge.transform_response("m", reply, made, MagicMock(), {}, [], {}, {}, None)

        self.requests: dict[tuple[str, str], Translate] = {
            (CHAT, MESSAGES): chat_to_messages,
            (CHAT, GEMINI): chat_to_gemini,
            (CHAT, RESPONSES): chat_to_responses,
            (MESSAGES, CHAT): lambda body: adapter.translate_anthropic_to_openai(body)[0],
            (RESPONSES, CHAT): responses_to_chat,
            (GEMINI, CHAT): gemini_to_chat,
        }
        self.replies: dict[tuple[str, str], Translate] = {
            (MESSAGES, CHAT): lambda body: claude.transform_parsed_response(
                body, httpx.Response(200, json=body), ModelResponse()
            ),
            (GEMINI, CHAT): gemini_reply,
            (RESPONSES, CHAT): responses_reply,
            (CHAT, MESSAGES): lambda body: adapter.translate_openai_response_to_anthropic(ModelResponse(**body)),
            (CHAT, GEMINI): lambda body: google.translate_completion_to_generate_content(ModelResponse(**body)),
            (CHAT, RESPONSES): lambda body: responses.transform_chat_completion_response_to_responses_api_response(
                "Hi", {}, ModelResponse(**body)
            ),
        }


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """litellm, loaded once, without asking the network for prices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        return Oracle()


WAYS: Final = [(CHAT, MESSAGES), (CHAT, GEMINI), (CHAT, RESPONSES), (MESSAGES, CHAT), (RESPONSES, CHAT), (GEMINI, CHAT)]
NOT_ASKED: Final = {
    (CHAT, MESSAGES, "three"): "ours refuses n, litellm leaves it out",
    (CHAT, RESPONSES, "three"): "ours refuses n, litellm leaves it out",
    (CHAT, RESPONSES, "stopped"): "ours refuses stop, litellm leaves it out",
    (CHAT, GEMINI, "attached"): "litellm fetches the image itself; ours leaves that to Google",
}
REQUESTS: Final = [
    (scenario, source, target)
    for scenario, spellings in SCENARIOS.items()
    for source, target in WAYS
    if source in spellings and (source, target, scenario) not in NOT_ASKED
]
ALL: Final = "every scenario"
DIFFER: Final = {
    (CHAT, GEMINI, "tools", "turns"): "litellm leaves out the calls' ids and wraps results in `content`, Google's own "
    "convention is `output`",
    (
        CHAT,
        GEMINI,
        ALL,
        "tools",
    ): "litellm cuts schemas to an older subset: no additionalProperties, no empty properties",
    (MESSAGES, CHAT, "any tool", "parallel_tools"): "litellm loses disable_parallel_tool_use",
    (MESSAGES, CHAT, "schema", "shape"): "litellm names it otherwise",
    (MESSAGES, CHAT, "sampled", "top_k"): "litellm leaves top_k to its providers' tables; OpenAI refuses it",
    (MESSAGES, CHAT, "attached", "turns"): "litellm makes an image of a PDF",
    (MESSAGES, CHAT, "shown", "turns"): "litellm leaves images in role tool, which OpenAI refuses",
    (RESPONSES, CHAT, "shown", "turns"): "litellm leaves images in role tool, which OpenAI refuses",
    (
        GEMINI,
        CHAT,
        "tools",
        "turns",
    ): "litellm loses the image and the calls' ids, which it makes of the names, so that two calls of one tool collide",
    (GEMINI, CHAT, "one tool", "tool_choice"): "litellm loses which tool must be called",
    (GEMINI, CHAT, "schema", "shape"): "litellm names it otherwise",
    (GEMINI, CHAT, "sampled", "seed"): "litellm loses it",
    (GEMINI, CHAT, "sampled", "presence_penalty"): "litellm loses it",
    (GEMINI, CHAT, "sampled", "frequency_penalty"): "litellm loses it",
    (GEMINI, CHAT, "three", "choices"): "litellm loses it",
}
"""Where requests differ: source, target, scenario and field, and why ours stays as it is."""


@pytest.mark.parametrize(("scenario", "source", "target"), REQUESTS)
def test_requests_are_as_litellm_makes_them(oracle: Oracle, scenario: str, source: str, target: str) -> None:
    body = SCENARIOS[scenario][source]
    request = parsed(source, body)
    talk = dialect_named(source).conversation(request)
    sent = dialect_named(target).render(request, talk, model=MODELS[target], limit_tokens=None, stream=False)
    ours = plain(talk_of(target, sent.body))
    theirs = plain(talk_of(target, json_of(oracle.requests[source, target](copy.deepcopy(body)))))
    differ = {name for name in ours if ours[name] != theirs[name]}
    known = {name for *way, case, name in DIFFER if tuple(way) == (source, target) and case in (scenario, ALL)}
    assert differ <= known
    assert {name for *_, case, name in DIFFER if case == scenario} & known <= differ


def json_of(made: Any) -> bytes:
    """What litellm made, as JSON."""
    return json.dumps(made, default=lambda value: value.model_dump(exclude_none=True)).encode()


UNREADABLE: Final = {(RESPONSES, CHAT, "nothing"): "litellm takes a reply without items for an error"}
REPLIES: Final = [(name, *way) for name in WHOLE for way in WAYS if (*way, name) not in UNREADABLE]
SAID_OTHERWISE: Final = {
    (
        GEMINI,
        CHAT,
        "thought and call",
    ): "litellm puts the call's signature into its id; ours into `extra_content`, where "
    "Google's own compatible endpoint has it",
    (GEMINI, CHAT, "filtered"): "litellm shows nothing of what was said before the filter, and no cached tokens",
    (RESPONSES, CHAT, "refusal"): "litellm loses refusals",
    (CHAT, RESPONSES, "refusal"): "litellm loses refusals",
    (CHAT, GEMINI, "refusal"): "litellm loses refusals",
    (CHAT, GEMINI, "thinking"): "litellm loses thoughts",
    (CHAT, GEMINI, "thought and call"): "litellm loses thoughts, and the call's id",
    (CHAT, GEMINI, "calls"): "litellm loses the calls' ids",
    (CHAT, GEMINI, "calls together"): "litellm loses the calls' ids",
    (CHAT, GEMINI, "call without arguments"): "litellm loses the calls' ids",
}
"""Where replies say something else, and why ours stays as it is."""


def counted(source: str, target: str, name: str) -> Usage:
    """Usage as litellm tells it: it loses reasoning on the way to Messages, and to Gemini cached tokens as well."""
    usage = seen_by(target, seen_by(source, USAGE))
    if target == MESSAGES:
        return Usage(usage.input, usage.output, usage.cache_read, usage.cache_write)
    if target == GEMINI:
        return Usage(usage.input, usage.output)
    return (
        Usage(usage.input, usage.output, 0, 0, 0, usage.reasoning) if (source, name) == (GEMINI, "filtered") else usage
    )


@pytest.mark.parametrize(("name", "source", "target"), REPLIES)
def test_replies_are_as_litellm_makes_them(oracle: Oracle, name: str, source: str, target: str) -> None:
    script = of_origin(SCRIPTS[name], source)
    reply = dialect_named(source).whole(asking(source), [*script, Done()], Counts(USAGE, True, None), None)
    made = oracle.replies[source, target](json.loads(reply))
    made = made if isinstance(made, dict) else made.model_dump(exclude_none=True)
    theirs, ours = gist(dialect_named(target).reader().whole(json_of(made))), kept(script, source, target)
    assert theirs["finished"] == ours["finished"]
    assert theirs["usage"] == counted(source, target, name)
    assert (theirs["said"] != ours["said"]) == ((source, target, name) in SAID_OTHERWISE)
