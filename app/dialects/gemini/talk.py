"""A whole Gemini request in no dialect's words; carry.py is the table of what cannot be said in them."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import Conversation, Message, Shape, Text, Tool
from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.gemini.carry import REFUSED, refusal
from app.dialects.gemini.schema import json_schema
from app.dialects.gemini.talk_parts import Contents, joined
from app.dialects.gemini.values import Members, items_in, members_in, set_members, text_in
from app.dialects.openai_chat.fields import field_of

_number = msgspec.json.Decoder(float)
_integer = msgspec.json.Decoder(int)
_texts = msgspec.json.Decoder(list[str])
_text = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool)
_OWN = frozenset(("model", "contents", "max_cost_usd", "maxCostUsd", "metadata"))
_NUMBERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_ELSEWHERE = frozenset(("maxOutputTokens", "candidateCount"))
"""Members of the configuration that ChatRequest holds."""


def conversation_of(request: ChatRequest) -> Conversation:
    """The conversation of a request of this dialect. Raises BadRequest for what cannot be carried elsewhere."""
    top = set_members(request.members)
    contents = Contents()
    talk = Conversation([], choices=request.choices)
    if "systemInstruction" in top:
        talk.messages.append(_system(top["systemInstruction"], contents))
    for place, raw in enumerate(items_in(top["contents"], "contents")):
        message = contents.message(raw, f"contents[{place}]")
        if message.parts:
            talk.messages.append(message)
    talk.messages = joined(talk.messages)
    for name, raw in top.items():
        if name in ("systemInstruction", *_OWN):
            continue
        if name == "tools":
            _add_tools(talk, raw)
        elif name == "generationConfig":
            _add_config(talk, members_in(raw, name))
        elif name in REFUSED:
            raise refusal(name, REFUSED[name])
        elif name != "toolConfig":
            talk.dropped.append(name)
    if "toolConfig" in top:
        _add_choice(talk, members_in(top["toolConfig"], "toolConfig"))
    talk.dropped = list(dict.fromkeys([*talk.dropped, *contents.dropped]))
    return talk


def _system(raw: msgspec.Raw, contents: Contents) -> Message:
    if bytes(memoryview(raw)[:1]) == b'"':
        return Message("system", [Text(field_of(_text, {"systemInstruction": raw}, "systemInstruction"))])
    return Message("system", contents.message(raw, "systemInstruction").parts)


def _add_tools(talk: Conversation, raw: msgspec.Raw) -> None:
    for place, item in enumerate(items_in(raw, "tools")):
        for name, value in members_in(item, f"tools[{place}]").items():
            param = f"tools[{place}].{name}"
            if name != "functionDeclarations":
                raise refusal(param, REFUSED.get(f"tools.{name}", "the tool runs at Google"))
            for index, declared in enumerate(items_in(value, param)):
                talk.tools.append(_tool(talk, declared, f"{param}[{index}]"))


def _tool(talk: Conversation, raw: msgspec.Raw, param: str) -> Tool:
    declared = members_in(raw, param)
    name = text_in(declared, "name", f"{param}.")
    if not name:
        raise BadRequest(f"The parameter {param}.name is required.", param=f"{param}.name")
    schema = declared.get("parametersJsonSchema")
    if schema is None and "parameters" in declared:
        schema = json_schema(declared["parameters"], f"{param}.parameters")
    known = ("name", "description", "parameters", "parametersJsonSchema")
    talk.dropped += [f"functionDeclarations.{other}" for other in declared if other not in known]
    return Tool(name, text_in(declared, "description", f"{param}."), schema)


def _add_choice(talk: Conversation, config: Members) -> None:
    talk.dropped += [f"toolConfig.{name}" for name in config if name != "functionCallingConfig"]
    if "functionCallingConfig" not in config:
        return
    param = "toolConfig.functionCallingConfig"
    calling = members_in(config["functionCallingConfig"], param)
    mode = (text_in(calling, "mode", f"{param}.") or "AUTO").upper()
    limits = "allowedFunctionNames" in calling
    allowed = field_of(_texts, calling, "allowedFunctionNames", f"{param}.") if limits else []
    talk.dropped += [
        f"functionCallingConfig.{name}" for name in calling if name not in ("mode", "allowedFunctionNames")
    ]
    if mode == "NONE":
        talk.tool_choice = "none"
        return
    if mode not in ("AUTO", "ANY", "VALIDATED", "MODE_UNSPECIFIED"):
        raise BadRequest("The parameter mode must be AUTO, ANY, VALIDATED or NONE.", param=f"{param}.mode")
    if allowed and mode in ("ANY", "VALIDATED"):
        unknown = set(allowed) - {tool.name for tool in talk.tools}
        if unknown:
            problem = f"The parameter {param}.allowedFunctionNames names a function that is not declared."
            raise BadRequest(problem, param=f"{param}.allowedFunctionNames")
        # Elsewhere a choice is free or of one tool: the others are not offered.
        if mode == "ANY" and len(allowed) == 1:
            talk.tool_named = allowed[0]
            return
        talk.tools = [tool for tool in talk.tools if tool.name in allowed]
    talk.tool_choice = "required" if mode == "ANY" else "auto"


def _add_config(talk: Conversation, config: Members) -> None:
    prefix = "generationConfig."
    for name, raw in config.items():
        if name in _NUMBERS:
            setattr(talk, _NUMBERS[name], field_of(_number, config, name, prefix))
        elif name == "topK":
            talk.top_k = int(field_of(_number, config, name, prefix))
        elif name == "seed":
            talk.seed = field_of(_integer, config, name, prefix)
        elif name == "stopSequences":
            talk.stop = field_of(_texts, config, name, prefix)
        elif name == "thinkingConfig":
            add_thinking(talk, members_in(raw, prefix + name))
        elif name == "responseModalities":
            if {kind.upper() for kind in field_of(_texts, config, name, prefix)} - {"TEXT"}:
                raise refusal(prefix + name, REFUSED[prefix + name])
        elif name not in _ELSEWHERE and name not in _SHAPES:
            talk.dropped.append(prefix + name)
    talk.shape = _shape(config)


_SHAPES = frozenset(("responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema"))


def _shape(config: Members) -> Shape | None:
    kind = text_in(config, "responseMimeType", "generationConfig.") or "text/plain"
    if kind not in ("text/plain", "application/json"):
        raise refusal("generationConfig.responseMimeType", REFUSED["generationConfig.responseMimeType"])
    schema = config.get("responseJsonSchema") or config.get("_responseJsonSchema")
    if schema is None and "responseSchema" in config:
        schema = json_schema(config["responseSchema"], "generationConfig.responseSchema")
    return Shape(schema) if schema is not None or kind == "application/json" else None


def add_thinking(talk: Conversation, thinking: Members) -> None:
    """Put a `thinkingConfig` into the conversation. Raises BadRequest."""
    prefix = "generationConfig.thinkingConfig."
    known: dict[str, Any] = {"includeThoughts": _flag, "thinkingBudget": _integer}
    values = {name: field_of(decoder, thinking, name, prefix) for name, decoder in known.items() if name in thinking}
    talk.show_thoughts = values.get("includeThoughts", False)
    budget = values.get("thinkingBudget", -1)
    # -1 leaves it to the model, which is what saying nothing means elsewhere.
    talk.think_tokens = budget if budget >= 0 else None
    level = (text_in(thinking, "thinkingLevel", prefix) or "").lower()
    talk.effort = level if level and level != "thinking_level_unspecified" else None
    talk.dropped += [prefix + name for name in thinking if name not in (*known, "thinkingLevel")]
