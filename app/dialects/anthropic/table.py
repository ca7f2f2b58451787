"""What cannot be carried between Messages and the other dialects, and why: the table that the code here obeys.

Refused is what would change what the answer means; dropped is what only changes how it is made or billed, and is
named in `Conversation.dropped`. Towards an upstream that speaks Messages too, everything goes on as it came.
Source of the names: https://platform.claude.com/docs/en/api/messages/create and the types of the official SDK.
"""

from __future__ import annotations

from typing import Final

CARRIED_MEMBERS: Final = frozenset(
    (
        "model",
        "messages",
        "max_tokens",
        "stream",
        "system",
        "tools",
        "tool_choice",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "metadata",
        "thinking",
        "output_config",
        "output_format",
        "max_cost_usd",
    )
)
"""Members of a request that the canonical form holds, or that are ours."""

REFUSED_MEMBERS: Final = {
    "container": "its files and skills are at the provider",
    "mcp_servers": "the provider would call these servers itself",
    "inference_geo": "only this dialect's provider can promise a place",
}
"""Members that another dialect's upstream cannot honour: a 400 that names them."""

DROPPED_MEMBERS: Final = {
    "service_tier": "a tier of this dialect's provider",
    "speed": "a mode of this dialect's provider",
    "context_management": "trims old turns to save tokens; without it all of them are sent",
    "compaction": "trims old turns to save tokens; without it all of them are sent",
    "cache_control": "marks the prompt for caching, which other providers do by themselves or by marks on parts",
    "diagnostics": "asks for a report on caching",
    "fallbacks": "models of this dialect's provider; the route has its own",
    "fallback_credit_token": "billing of this dialect's provider",
    "billing_policy": "billing of this dialect's provider",
    "user_profile_id": "accounting of this dialect's provider",
    "workspace_id": "accounting of this dialect's provider",
    "betas": "flags of this dialect's provider",
}
"""Members that are left out; one that is not in any of these tables is left out as well, by its name."""

REFUSED_BLOCKS: Final = {
    "container_upload": "its file is at the provider",
    "tool_addition": "tools that change within the conversation",
    "tool_removal": "tools that change within the conversation",
}
"""Content blocks that no other dialect has; so is every block of a type that is in neither table."""

DROPPED_BLOCKS: Final = {
    "server_tool_use": "a call that the provider made and answered itself; what the model said of it stays",
    "mcp_tool_use": "a call that the provider made and answered itself; what the model said of it stays",
    "web_search_tool_result": "encrypted for this dialect's provider; what the model said of it stays",
    "web_fetch_tool_result": "a result of the provider's own tool; what the model said of it stays",
    "code_execution_tool_result": "a result of the provider's own tool; what the model said of it stays",
    "bash_code_execution_tool_result": "a result of the provider's own tool; what the model said of it stays",
    "text_editor_code_execution_tool_result": "a result of the provider's own tool; what the model said of it stays",
    "tool_search_tool_result": "names tools, all of which other providers see anyway",
    "advisor_tool_result": "encrypted for this dialect's provider; what the model said of it stays",
    "mcp_tool_result": "a result of the provider's own tool; what the model said of it stays",
    "tool_reference": "names a tool, which other providers see anyway",
    "fallback": "a note on which model spoke",
}
"""Content blocks of earlier turns that are left out."""

DROPPED_TOOLS: Final = {
    "tool_search_tool": "finds tools that were not shown; other providers see them all",
}
"""Tools that are left out, by the beginning of their type; any other but a custom tool is refused, because the
provider runs it (`web_search_20250305`) or the model knows it without a schema (`bash_20250124`)."""

DROPPED_PARTS: Final = {
    "citations": "asks for marks in the answer that no other dialect has",
    "billing header": "Claude Code's first system block, for its maker's accounts and different in every session",
    "metadata.user_id": "holds Claude Code's session and account, which are no other provider's business",
    "output_config.task_budget": "told to models that were trained on it",
}
"""Smaller things left out on the way to another dialect."""

UNCARRIED: Final = {
    "seed": "Messages has none",
    "presence_penalty": "Messages has none",
    "frequency_penalty": "Messages has none",
    "temperature": "above one it is one; refused by the model, or while it thinks in a fixed budget",
    "top_p": "refused by the model, beside a temperature, or while it thinks in a fixed budget",
    "top_k": "refused by the model, or while it thinks in a fixed budget",
    "stop": "a stop sequence of nothing but white space is refused",
    "thinking": "the model cannot, its limit leaves no room, a tool is forced, or a tool loop began without it; or it "
    "cannot be turned off, and is as little as can be",
    "user": "longer than Messages takes",
    "tools.strict": "a promise about arguments; what schemas it takes differs from maker to maker",
    "messages.thinking": "thinking whose proof is another provider's, or that has none",
}
"""What a conversation of another dialect may lose on its way to a Messages upstream."""

REFUSED_WISHES: Final = {
    "n": "The model that was chosen gives one answer to a request.",
    "audio": "The model that was chosen takes no audio.",
    "file": "The model that was chosen takes only PDF and plain text as files.",
    "text file": "A text file in the messages is not UTF-8 in base64.",
    "stored file": "A file that is stored at one provider cannot go to another.",
    "schema": "The schema of a tool's arguments must be a JSON object.",
    "forced": "The model that was chosen cannot be made to call a tool; let it choose (auto).",
    "prefill": "The model that was chosen does not go on with an assistant's message; end with a user's.",
}
"""What a conversation of another dialect may not ask of a Messages upstream, in the words of the error."""

ANY_JSON_NOTE: Final = "Answer with one JSON object and nothing else: no prose around it, no code fence."
"""Messages knows answers of a given JSON Schema only: any JSON is asked for in the system prompt."""

LONE_TURN: Final = "(continued)"
"""A conversation must begin with the user; one that does not, or has no turn at all, begins with this."""

DEFAULT_LIMIT_TOKENS: Final = 32_000
"""`max_tokens` is required; where neither client nor cap names a limit this holds (every Claude since 4 can)."""
OLD_DEFAULT_LIMIT_TOKENS: Final = 4096
"""The same for Claude 3, and for models of other makers behind this dialect."""
