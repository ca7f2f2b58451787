"""What of Chat Completions goes on to another dialect: carried, refused or dropped, and why. Never silently changed.

Pass-through from chat to chat knows nothing of this table: there every member goes on as it came.
Parameters: https://platform.openai.com/docs/api-reference/chat/create, those of vLLM:
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#extra-parameters, those of OpenRouter:
https://openrouter.ai/docs/api-reference/parameters
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.errors import BadRequest
from app.dialects.openai_chat.fields import field_of

# fmt: off
CARRIED: Final = frozenset((
    "messages", "tools", "functions", "tool_choice", "function_call", "parallel_tool_calls", "response_format",
    "stop", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty",
    "reasoning_effort", "reasoning", "thinking", "include_reasoning", "user", "safety_identifier", "n",
    "verbosity", "prompt_cache_key", "prompt_cache_retention",
    "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_cost_usd",
))
# fmt: on
"""Members that the conversation or the `ChatRequest` holds; `own.py` says which of them go to OpenAI alone."""

_CONSTRAINT = "the answer would not keep to it"
REFUSED: Final = {
    "audio": "the answer would not be spoken",
    "modalities": "the answer would be text only",
    "web_search_options": "nothing would be searched",
    "plugins": "none of them would run",
    "logprobs": "the answer would have none",
    "top_logprobs": "the answer would have none",
    "logit_bias": "the answer would not be biased",
    "guided_json": _CONSTRAINT,
    "guided_regex": _CONSTRAINT,
    "guided_choice": _CONSTRAINT,
    "guided_grammar": _CONSTRAINT,
    "structured_outputs": _CONSTRAINT,
    "grammar": _CONSTRAINT,
    "json_schema": _CONSTRAINT,
}
"""Members without which the answer would be another one than was asked for."""

DROPPED: Final = {
    "metadata": "labels for the provider's own dashboards; `task_id` is read before",
    "store": "keeps the reply at the provider, for its own dashboards",
    "service_tier": "names a tier of one provider",
    "prediction": "only makes the same answer faster",
    "provider": "heeded where this candidate was chosen, as far as it restricts who may serve the request",
    "route": "routing is the gateway's",
    "min_p": "sampling that other dialects have no word for",
    "repetition_penalty": "sampling that other dialects have no word for",
}
"""Members that are left out and named in `Conversation.dropped`. So is every member that this page does not know."""

NOT_CARRIED_IN_MESSAGES: Final = {
    "name": "who of several speakers says it: dropped",
    "audio": "an earlier spoken answer that is kept at the provider: refused",
    "file_id": "a file that is kept at the provider: refused",
    "reasoning_details": "OpenRouter's proofs of thinking: dropped, the text beside them is kept",
    "annotations": "where an answer was found: dropped",
}
"""Within messages. Part types beside text, image_url, input_audio, file, refusal and thinking are refused."""

INTO_CHAT: Final = {
    "developer": "developer messages become system messages: only OpenAI knows the role, and it takes both as one",
    "texts": "several texts of one message become one: blank lines between them, nothing between an assistant's",
    "result order": "tool results stand directly behind the calls, whatever stood between",
    "result media": "images and files in tool results move into a user message behind the results",
    "is_error": "dropped: chat's results have no mark of failure, their text says it",
    "cache_control": "dropped: chat's providers cache by themselves",
    "thinking": "dropped, but for a chat provider's own beside tool calls, which is `reasoning_content` again: "
    "DeepSeek refuses such a turn without it, and ignores it in others (https://api-docs.deepseek.com/guides/thinking_mode);"
    " dropped, too, for hosts that refuse it (`takes_reasoning`)",
    "signature": "only to Gemini's models, whose compatible endpoint wants it (`extra_content`): OpenAI refuses "
    "what it does not know in a call",
    "strict": "only with a schema that OpenAI takes as strict (`strict.py`)",
    "top_k": "dropped: OpenAI refuses it",
    "think_tokens": "the effort that Google's compatible endpoint gives for such a budget, where no effort is said",
    "effort": "the least of the model's own that is not below it (`models.py`); dropped where the model has none",
    "temperature, top_p, penalties": "dropped for OpenAI's reasoning models, which refuse them",
    "stop": "refused for OpenAI's reasoning models, which refuse it",
    "call ids": "longer than forty characters: shortened to a digest, in calls and results alike",
    "tool names": "longer than 64 characters, or with others than letters, digits, _ and -: see `short_names.py`",
    "file url": "refused: chat takes files by their content",
    "audio format": "refused, unless it is wav or mp3",
    "media of an assistant": "refused: chat's assistants say text",
}
"""What rendering a conversation as a chat request changes."""

FROM_REPLIES: Final = {
    "logprobs": "dropped: events hold none",
    "annotations": "dropped",
    "audio": "the transcript is text; the sound is dropped",
    "reasoning_details": "dropped, the text beside them is kept",
    "signature of a thought": "dropped: chat has no place for it",
    "signature of a call": "kept, as Google's compatible endpoint has it (`extra_content`)",
    "stop_sequence": "kept where vLLM names it, else unknown",
    "cache_write_1h": "counted among `cache_write_tokens`",
}
"""What a reply of chat loses on its way to other dialects, and a reply of theirs on its way to chat."""

_IDLE: Final = frozenset((b"null", b"false", b"{}", b"[]", b'""', b"0"))
_words = msgspec.json.Decoder(list[str] | None)


def not_carried(members: dict[str, msgspec.Raw]) -> list[str]:
    """The names of members to drop; BadRequest for one that must not be. A member that asks for nothing is neither."""
    dropped = []
    for name, value in members.items():
        if name in CARRIED or bytes(value).strip() in _IDLE:
            continue
        if name == "modalities" and field_of(_words, members, name) == ["text"]:
            continue
        if name in REFUSED:
            raise BadRequest(
                f"The parameter {name} cannot be carried to a provider of another dialect: {REFUSED[name]}.", param=name
            )
        dropped.append(name)
    return dropped
