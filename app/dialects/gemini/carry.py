"""What passes between Gemini and other dialects, and what does not: the written table.

Refused is what would change the meaning of a reply; dropped is what another provider serves without, and each drop
is named in `Conversation.dropped`. Within the dialect everything passes as it came. Names are Gemini's, dotted.
Source: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from typing import Final

from app.core.errors import BadRequest

REFUSED: Final[dict[str, str]] = {
    "cachedContent": "the cached prompt lies with Google",
    "tools.googleSearch": "the search runs at Google",
    "tools.googleSearchRetrieval": "the search runs at Google",
    "tools.codeExecution": "the code runs at Google",
    "tools.urlContext": "Google fetches the pages",
    "tools.googleMaps": "the maps are Google's",
    "tools.fileSearch": "the files lie with Google",
    "tools.computerUse": "only Google's models know this tool",
    "parts.executableCode": "it belongs to code that ran at Google",
    "parts.codeExecutionResult": "it belongs to code that ran at Google",
    "parts.toolCall": "it belongs to a tool that ran at Google",
    "parts.toolResponse": "it belongs to a tool that ran at Google",
    "parts.fileData": "only Google can read this file",
    "parts.video": "no other dialect has video",
    "generationConfig.responseModalities": "no other dialect answers in this modality",
    "generationConfig.responseMimeType": "no other dialect has this format",
}
"""From a Gemini client to another dialect: a 400 that names the parameter."""

DROPPED: Final[dict[str, str]] = {
    "safetySettings": "other providers filter by their own rules",
    "labels": "for the billing of Google's clouds",
    "serviceTier": "a tier of Google's",
    "store": "a log of Google's",
    "toolConfig.retrievalConfig": "for Google's own search and maps",
    "toolConfig.includeServerSideToolInvocations": "such tools are refused",
    "functionCallingConfig.streamFunctionCallArguments": "how calls are streamed is their dialect's own matter",
    "functionDeclarations.response": "no other dialect describes what a function returns",
    "functionDeclarations.responseJsonSchema": "no other dialect describes what a function returns",
    "functionDeclarations.behavior": "for live sessions",
    "parts.videoMetadata": "for video, which is refused",
    "parts.mediaResolution": "other providers choose their own",
    "parts.partMetadata": "for the client itself",
    "generationConfig.responseLogprobs": "the canonical reply has no log probabilities",
    "generationConfig.logprobs": "the canonical reply has no log probabilities",
    "generationConfig.mediaResolution": "other providers choose their own",
    "generationConfig.speechConfig": "for spoken replies, which are refused",
    "generationConfig.audioTimestamp": "for the input's sound only",
    "generationConfig.enableEnhancedCivicAnswers": "a switch of Google's",
    "generationConfig.routingConfig": "for Google's own router",
    "generationConfig.modelSelectionConfig": "for Google's own router",
    "generationConfig.translationConfig": "only Google's models know it",
}
"""From a Gemini client to another dialect. Members that this table does not know are dropped, and named, too."""

UPSTREAM: Final[dict[str, tuple[str, str]]] = {
    "user": ("dropped", "Gemini has no name for the end user"),
    "parallel_tool_calls": ("dropped", "Gemini decides for itself how many functions it calls at once"),
    "tools.strict": ("dropped", "Gemini's functions have no such switch"),
    "cache_control": ("dropped", "Gemini caches prefixes by itself"),
    "image detail": ("dropped", "Gemini's mediaResolution is a matter of the whole request"),
    "thinking": ("dropped", "Gemini reads no thoughts but its own, which it knows by their signature"),
    "reasoning_effort": ("dropped", "by models that are not known to think (before Gemini 2.5, and other names)"),
    "stop": ("refused", "more than five stop sequences"),
    "tools.custom": ("carried", "as functions of one string, `input`, and their calls back as what they were"),
    "tool arguments": ("carried", "what is not a JSON object stands under `input`"),
    "tool result media": ("carried", "behind the results, in a turn of the user's: older models take none in them"),
    "system messages": ("carried", "all in systemInstruction; alone, as the user's turn, since Gemini wants one"),
    "thinking budget": ("carried", "at most 24,576 tokens (Pro: from 128 to 32,768), which are the models' bounds"),
    "tool call ids": ("carried", "Vertex's older versions may refuse `id` in calls and responses"),
    "image url": ("carried", "as fileData; models before Gemini 3 may refuse a foreign address"),
    "JSON Schema": (
        "carried",
        "whole, in parametersJsonSchema and responseJsonSchema; an endpoint may refuse what is not in its subset "
        "(recursion, very large enums, unknown formats), a responseJsonSchema beside functions before Gemini 3, "
        "and both members in API versions before v1beta of mid-2025",
    ),
    "function calls without a signature": (
        "carried",
        "to Gemini 3 and later with Google's own word for calls that another model made (within the dialect, too)",
    ),
    "thinkingConfig": ("carried", "within the dialect, too, as the model takes it: a level, a budget, or nothing"),
}
"""From another dialect to a Gemini upstream: what is not carried as it is, and what the endpoint may refuse."""


def refusal(place: str, why: str) -> BadRequest:
    """The error for what another dialect cannot carry; `place` is the parameter as the client wrote it."""
    return BadRequest(f"The parameter {place} cannot go to a provider of another dialect: {why}.", param=place)
