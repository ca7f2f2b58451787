"""A conversation of another dialect as a Gemini request; `carry.UPSTREAM` says what becomes of what it cannot say.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/function-calling.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import Conversation, Shape, Tool
from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.base import UpstreamRequest
from app.dialects.gemini.paths import bare_model, generate_path
from app.dialects.gemini.render_parts import Turns
from app.dialects.gemini.thinking import thinking_config
from app.dialects.openai_responses.custom import as_function

MAX_STOPS = 5
"""https://ai.google.dev/api/generate-content#GenerationConfig: up to five stop sequences."""
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def render_generate(
    request: ChatRequest, talk: Conversation, *, model: str, limit_tokens: int | None, stream: bool
) -> UpstreamRequest:
    """The request for a Gemini upstream. Raises BadRequest for what it cannot carry; `talk.dropped` grows by names."""
    model = bare_model(model)
    turns = Turns(talk, model)
    body: dict[str, Any] = {}
    system, contents = turns.rendered()
    if not contents and not system:
        raise BadRequest("The request holds nothing for the model to read.", param="messages")
    if contents and system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents or [{"role": "user", "parts": system}]
    if talk.tools:
        body["tools"] = [{"functionDeclarations": [_declared(tool, talk) for tool in talk.tools]}]
        calling = _calling(talk)
        if calling is not None:
            body["toolConfig"] = {"functionCallingConfig": calling}
    config = _config(talk, model)
    limit = limit_tokens if limit_tokens is not None else request.output_limit
    if limit is not None:
        config["maxOutputTokens"] = limit
    if config:
        body["generationConfig"] = config
    if talk.user is not None:
        talk.dropped.append("user")
    if talk.parallel_tools is False:
        talk.dropped.append("parallel_tool_calls")
    talk.dropped = list(dict.fromkeys([*talk.dropped, *turns.dropped]))
    return UpstreamRequest(generate_path(model, stream=stream), msgspec.json.encode(body))


def _declared(tool: Tool, talk: Conversation) -> dict[str, Any]:
    if tool.custom:
        tool = as_function(tool.name, tool.description, tool.format)
    if tool.strict is not None:
        talk.dropped.append("tools.strict")
    if tool.cache:
        talk.dropped.append("cache_control")
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    if tool.schema is not None:
        declared["parametersJsonSchema"] = tool.schema
    return declared


def _calling(talk: Conversation) -> dict[str, Any] | None:
    if talk.tool_named is not None:
        return {"mode": "ANY", "allowedFunctionNames": [talk.tool_named]}
    return {"mode": _MODES[talk.tool_choice]} if talk.tool_choice is not None else None


def _config(talk: Conversation, model: str) -> dict[str, Any]:
    if len(talk.stop) > MAX_STOPS:
        raise BadRequest("Gemini takes no more than five stop sequences.", param="stop")
    given: dict[str, Any] = {
        "temperature": talk.temperature,
        "topP": talk.top_p,
        "topK": talk.top_k,
        "seed": talk.seed,
        "presencePenalty": talk.presence_penalty,
        "frequencyPenalty": talk.frequency_penalty,
        "stopSequences": talk.stop or None,
        "candidateCount": talk.choices if talk.choices > 1 else None,
        "thinkingConfig": thinking_config(talk, model),
        **_shaped(talk.shape),
    }
    return {name: value for name, value in given.items() if value is not None}


def _shaped(shape: Shape | None) -> dict[str, Any]:
    if shape is None:
        return {}
    return {"responseMimeType": "application/json", "responseJsonSchema": shape.schema}
