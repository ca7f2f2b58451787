"""One request in four spellings, scenario by scenario: what a client of each dialect writes to say the same."""

from __future__ import annotations

import json
from typing import Any, Final

from app.dialects.registry import CHAT, GEMINI, MESSAGES, RESPONSES

Body = dict[str, Any]
PIXEL: Final = "iVBORw0KGgo="
PDF: Final = "JVBERi0="
CITY: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "where"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
PLACE: Final = {**CITY, "required": ["city", "days"]}
NOTHING: Final = {"type": "object", "properties": {}}
SYSTEM: Final = "Be brief; say “Grüße”."
ARGUMENTS: Final = {"city": 'Zürich "HB"', "days": 2}


def chat(*messages: Body, **more: Any) -> Body:
    """A chat request."""
    return {"model": "m", "max_tokens": 4000, "messages": list(messages), **more}


def responses(*items: Body, **more: Any) -> Body:
    """A Responses request."""
    return {"model": "m", "max_output_tokens": 4000, "input": list(items), **more}


def anthropic(*messages: Body, **more: Any) -> Body:
    """A Messages request."""
    return {"model": "m", "max_tokens": 4000, "messages": list(messages), **more}


def gemini(*contents: Body, config: Body | None = None, **more: Any) -> Body:
    """A generateContent request."""
    return {"contents": list(contents), "generationConfig": {"maxOutputTokens": 4000, **(config or {})}, **more}


def _user(text: str) -> Body:
    return {"role": "user", "content": text}


def _model(*parts: Body) -> Body:
    return {"role": "model", "parts": list(parts)}


def _said(*parts: Body) -> Body:
    return {"role": "user", "parts": list(parts)}


TALK: Final = {
    CHAT: chat(
        {"role": "system", "content": SYSTEM}, _user("Hi"), {"role": "assistant", "content": "Hello."}, _user("And?")
    ),
    RESPONSES: responses(
        _user("Hi"),
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
        },
        _user("And?"),
        instructions=SYSTEM,
    ),
    MESSAGES: anthropic(_user("Hi"), {"role": "assistant", "content": "Hello."}, _user("And?"), system=SYSTEM),
    GEMINI: gemini(
        _said({"text": "Hi"}),
        _model({"text": "Hello."}),
        _said({"text": "And?"}),
        systemInstruction={"parts": [{"text": SYSTEM}]},
    ),
}

_CHAT_TOOLS: Final = [
    {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "time", "description": "Time", "parameters": NOTHING}},
]
_RESPONSES_TOOLS: Final = [
    {"type": "function", "name": "weather", "description": "Weather", "parameters": CITY, "strict": False},
    {"type": "function", "name": "time", "description": "Time", "parameters": NOTHING, "strict": False},
]
_ANTHROPIC_TOOLS: Final = [
    {"name": "weather", "description": "Weather", "input_schema": CITY},
    {"name": "time", "description": "Time", "input_schema": NOTHING},
]
_GEMINI_TOOLS: Final = [
    {
        "functionDeclarations": [
            {"name": "weather", "description": "Weather", "parametersJsonSchema": CITY},
            {"name": "time", "description": "Time", "parametersJsonSchema": NOTHING},
        ]
    }
]
_DATA: Final = f"data:image/png;base64,{PIXEL}"
_SOURCE: Final = {"type": "base64", "media_type": "image/png", "data": PIXEL}
_INLINE: Final = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}

TOOLS: Final = {
    CHAT: chat(
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": _DATA}}],
        },
        {
            "role": "assistant",
            "content": "I call.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}},
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        _user("And now?"),
        tools=_CHAT_TOOLS,
        tool_choice="auto",
    ),
    RESPONSES: responses(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": _DATA, "detail": "auto"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I call.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": json.dumps(ARGUMENTS)},
        {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": "noon"},
        _user("And now?"),
        tools=_RESPONSES_TOOLS,
        tool_choice="auto",
    ),
    MESSAGES: anthropic(
        {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": _SOURCE}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I call."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS},
                {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "noon"}]},
                {"type": "text", "text": "And now?"},
            ],
        },
        tools=_ANTHROPIC_TOOLS,
        tool_choice={"type": "auto"},
    ),
    GEMINI: gemini(
        _said({"text": "Look"}, _INLINE),
        _model(
            {"text": "I call."},
            {"functionCall": {"id": "c1", "name": "weather", "args": ARGUMENTS}},
            {"functionCall": {"id": "c2", "name": "time", "args": {}}},
        ),
        _said(
            {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "sunny"}}},
            {"functionResponse": {"id": "c2", "name": "time", "response": {"output": "noon"}}},
        ),
        _said({"text": "And now?"}),
        tools=_GEMINI_TOOLS,
        toolConfig={"functionCallingConfig": {"mode": "AUTO"}},
    ),
}

ONE_TOOL: Final = {
    CHAT: chat(_user("Hi"), tools=_CHAT_TOOLS, tool_choice={"type": "function", "function": {"name": "time"}}),
    RESPONSES: responses(_user("Hi"), tools=_RESPONSES_TOOLS, tool_choice={"type": "function", "name": "time"}),
    MESSAGES: anthropic(_user("Hi"), tools=_ANTHROPIC_TOOLS, tool_choice={"type": "tool", "name": "time"}),
    GEMINI: gemini(
        _said({"text": "Hi"}),
        tools=_GEMINI_TOOLS,
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["time"]}},
    ),
}
ANY_TOOL: Final = {
    CHAT: chat(_user("Hi"), tools=_CHAT_TOOLS, tool_choice="required", parallel_tool_calls=False),
    RESPONSES: responses(_user("Hi"), tools=_RESPONSES_TOOLS, tool_choice="required", parallel_tool_calls=False),
    MESSAGES: anthropic(
        _user("Hi"), tools=_ANTHROPIC_TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True}
    ),
    GEMINI: gemini(_said({"text": "Hi"}), tools=_GEMINI_TOOLS, toolConfig={"functionCallingConfig": {"mode": "ANY"}}),
}
NO_TOOL: Final = {
    CHAT: chat(_user("Hi"), tools=_CHAT_TOOLS, tool_choice="none"),
    RESPONSES: responses(_user("Hi"), tools=_RESPONSES_TOOLS, tool_choice="none"),
    MESSAGES: anthropic(_user("Hi"), tools=_ANTHROPIC_TOOLS, tool_choice={"type": "none"}),
    GEMINI: gemini(_said({"text": "Hi"}), tools=_GEMINI_TOOLS, toolConfig={"functionCallingConfig": {"mode": "NONE"}}),
}
SCHEMA: Final = {
    CHAT: chat(
        _user("Hi"),
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}},
    ),
    RESPONSES: responses(
        _user("Hi"), text={"format": {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}}
    ),
    MESSAGES: anthropic(_user("Hi"), output_config={"format": {"type": "json_schema", "schema": PLACE}}),
    GEMINI: gemini(_said({"text": "Hi"}), config={"responseMimeType": "application/json", "responseJsonSchema": PLACE}),
}
SAMPLED: Final = {
    CHAT: chat(_user("Hi"), temperature=0.5, seed=7, presence_penalty=0.5, frequency_penalty=0.25, user="u"),
    RESPONSES: responses(_user("Hi"), temperature=0.5, user="u"),
    MESSAGES: anthropic(_user("Hi"), temperature=0.5, top_k=5, metadata={"user_id": "u"}),
    GEMINI: gemini(
        _said({"text": "Hi"}),
        config={"temperature": 0.5, "topK": 5, "seed": 7, "presencePenalty": 0.5, "frequencyPenalty": 0.25},
    ),
}
STOPPED: Final = {
    CHAT: chat(_user("Hi"), stop=["END", "\n\n---"]),
    MESSAGES: anthropic(_user("Hi"), stop_sequences=["END", "\n\n---"]),
    GEMINI: gemini(_said({"text": "Hi"}), config={"stopSequences": ["END", "\n\n---"]}),
}
THREE: Final = {
    CHAT: chat(_user("Hi"), n=3),
    GEMINI: gemini(_said({"text": "Hi"}), config={"candidateCount": 3}),
}
ATTACHED: Final = {
    CHAT: chat(
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
                {"type": "text", "text": "Read"},
            ],
        }
    ),
    RESPONSES: responses(
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
                {"type": "input_text", "text": "Read"},
            ],
        }
    ),
    MESSAGES: anthropic(
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
                {"type": "text", "text": "Read"},
            ],
        }
    ),
}
SHOWN: Final = {
    RESPONSES: responses(
        _user("Hi"),
        {"type": "function_call", "call_id": "c1", "name": "time", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": _DATA, "detail": "auto"},
            ],
        },
        {"type": "function_call_output", "call_id": "c2", "output": "noon"},
        tools=_RESPONSES_TOOLS,
    ),
    MESSAGES: anthropic(
        _user("Hi"),
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "time", "input": {}},
                {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "see"}, {"type": "image", "source": _SOURCE}],
                },
                {"type": "tool_result", "tool_use_id": "c2", "content": "noon"},
            ],
        },
        tools=_ANTHROPIC_TOOLS,
    ),
}
EFFORT: Final = {
    CHAT: chat(_user("Hi"), max_completion_tokens=64_000, reasoning_effort="high"),
    RESPONSES: responses(_user("Hi"), reasoning={"effort": "high", "summary": "auto"}),
    MESSAGES: anthropic(_user("Hi"), thinking={"type": "adaptive"}, output_config={"effort": "high"}),
    GEMINI: gemini(
        _said({"text": "Hi"}), config={"thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True}}
    ),
}

SCENARIOS: Final[dict[str, dict[str, Body]]] = {
    "talk": TALK,
    "tools": TOOLS,
    "one tool": ONE_TOOL,
    "any tool": ANY_TOOL,
    "no tool": NO_TOOL,
    "schema": SCHEMA,
    "sampled": SAMPLED,
    "stopped": STOPPED,
    "three": THREE,
    "attached": ATTACHED,
    "shown": SHOWN,
}
