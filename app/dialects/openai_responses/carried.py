"""What of a Responses request other dialects cannot carry, and what becomes of it; the reasons are shown to nobody but
the reader, the names in REFUSED to the client, the names in DROPPED in the call's record."""

from __future__ import annotations

from typing import Final

REFUSED_MEMBERS: Final = {
    "previous_response_id": "the conversation is kept by the provider of the earlier reply",
    "conversation": "the conversation is kept by OpenAI",
    "prompt": "the prompt is kept by OpenAI",
}
"""Members without which the request would mean something else."""

CARRIED_MEMBERS: Final = frozenset(
    (
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "background",
        "max_output_tokens",
        "max_cost_usd",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "temperature",
        "top_p",
        "user",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
    )
)
"""Members that are read. All others are dropped by name: `store`, `include`, `metadata`, `service_tier`, `truncation`,
and the like steer OpenAI's own service, `top_logprobs` and `max_tool_calls` what only it returns
or runs; the answer is the same without them. `openai_chat/own.py` says what goes to OpenAI alone."""

DROPPED_TOOLS: Final = {
    "web_search": "codex offers it in every call, whether its user wants it or not; the model does without",
    "web_search_preview": "as web_search",
    "image_generation": "codex offers it in every call where it is switched on; the model does without",
    "tool_search": "finds tools that are offered later; what it has found before is offered as it was found",
}
"""Tools that a provider runs, or that serve only it, and that clients offer unasked."""

REFUSED_TOOLS: Final = {
    "file_search": "runs at OpenAI, on files that are there",
    "code_interpreter": "runs at OpenAI",
    "computer": "its actions are known to OpenAI's models only",
    "computer_use_preview": "as computer",
    "mcp": "OpenAI connects to the server that it names",
    "local_shell": "its actions are known to OpenAI's models only",
    "shell": "as local_shell",
    "apply_patch": "as local_shell",
    "programmatic_tool_calling": "runs at OpenAI",
}
"""Tools that a client offers because its task needs them. Types unknown here are refused like these."""

DROPPED_ITEMS: Final = {
    "web_search_call": "what it found stands in the text behind it",
    "image_generation_call": "the picture was for the user",
    "file_search_call": "what it found stands in the text behind it",
    "code_interpreter_call": "what it gave stands in the text behind it",
    "mcp_list_tools": "a list of what the model could call",
    "tool_search_call": "see tool_search",
    "tool_search_output": "see tool_search",
    "additional_tools": "its tools are offered with the others",
}
"""Items of `input` that tell what a provider did. All kinds named nowhere are refused: an `item_reference` or a
`compaction` stands for text that only OpenAI has, calls of `shell` and its like for turns of the conversation."""

CARRIED_ITEMS: Final = frozenset(
    (
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    )
)

RENDER_DROPPED: Final = {
    "top_k": "no such parameter; it narrows a choice that the model makes well without",
    "seed": "as top_k",
    "presence_penalty": "as top_k",
    "frequency_penalty": "as top_k",
    "cache_control": "OpenAI caches prefixes unasked",
    "temperature": "refused by reasoning models",
    "top_p": "refused by reasoning models",
    "effort": "refused by models that do not reason",
    "strict": "OpenAI refuses a strict schema with optional members, which other dialects allow",
    "is_error": "a tool's output has no such mark; its text says what went wrong",
    "thinking": "thoughts of another provider's model, or unsigned ones, are refused by OpenAI",
    "assistant_media": "an assistant's message holds text alone",
}
"""What other dialects' conversations hold and Responses cannot: dropped."""

RENDER_REFUSED: Final = {
    "stop": "there are no stop sequences; without them the answer would run on",
    "n": "there is one choice",
    "input_audio": "no sound can be sent",
}
"""The same, refused."""
