"""The canonical values that every dialect translates to and from."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from app.core.money import Usage
from app.core.stored import Stored

SERVER_TOOLS = ("web_search", "file_search", "code_execution", "image_generation", "maps", "advisor")
"""Tools that providers run themselves, under whatever name, and bill by the piece; they name the fees of a policy.
Those that cost nothing but tokens (fetching pages, finding tools, remote MCP servers) are not among them."""

SERVICE_TIERS = frozenset(("priority", "flex", "fast", "ultrafast", "us", "fast-us"))
"""Tiers of service with prices of their own: OpenAI's and Google's `service_tier`, Anthropic's `speed` and
`inference_geo` (`us`: it is to run there alone). Any other word
asks for what has the plain price, or is refused by the provider."""

DEFAULT_FALLBACKS = "default"
"""In `Prompt.fallbacks`: the provider itself chooses who answers where the asked model declines."""


class Placement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who may serve a request, as far as its client restricts that (OpenRouter's `provider`). `only`, `ignore`: names
    of providers, in small letters; the highest rates are in nano-dollars per million tokens; `promises`: what only
    OpenRouter can see to, by the members' names."""

    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    max_input_rate: int | None = None
    max_output_rate: int | None = None
    promises: tuple[str, ...] = ()


class Prompt(msgspec.Struct):
    """What the request says, free of any dialect: for features, capability filters and token estimates.

    `text_bytes` counts the JSON of messages and tools as sent, without attachments (`images`, audio, files).
    `hears`: there is sound in it; `speaks`: an answer in sound or pictures is wanted, for these have their own prices.
    `service_tier`: of SERVICE_TIERS, where it asks for another than the ordinary one, which has prices of its own.
    `server_tools`: the tools on offer that a provider runs and bills by the piece; `tool_limits`: how often it may use
    which, as the client says (under "*": all together); `searches`: it is told to search, and not only allowed to.
    `fallbacks`: models of the same provider that are to answer, each in turn, where the asked one declines.
    """

    system: str = ""
    first_user: str = ""
    last_user: str = ""
    history_chars: int = 0
    turns: int = 0
    messages: int = 0
    tools: int = 0
    tool_schema_bytes: int = 0
    images: int = 0
    attachments: int = 0
    text_bytes: int = 0
    wants_json: bool = False
    wants_schema: bool = False
    in_tool_loop: bool = False
    hears: bool = False
    speaks: bool = False
    service_tier: str | None = None
    searches: bool = False
    server_tools: tuple[str, ...] = ()
    tool_limits: tuple[tuple[str, int], ...] = ()
    fallbacks: tuple[str, ...] = ()
    reasoning_effort: str | None = None
    placement: Placement | None = None


class ChatRequest(msgspec.Struct):
    """One call, in any dialect. `members` are the top-level members of the client's JSON, bytes as they came.

    `output_limit` is the client's own, per choice; `limit_fields` are the fields it was sent in. `forward`: the
    client's headers that an upstream of the same dialect must see (`anthropic-beta`). `array`: the stream is a JSON
    array instead of server-sent events (Gemini without `alt=sse`). `session`: what a client's body says of itself
    unasked; `task_id`, which it says on purpose, beats it. `others`: whom to ask, in turn, where `model` fails.
    `whole`: the answer cannot be streamed. `stored`: what it has to do with responses that are stored here.
    """

    members: dict[str, msgspec.Raw]
    model: str
    stream: bool
    show_usage: bool
    choices: int
    output_limit: int | None
    limit_fields: tuple[str, ...]
    prompt: Prompt
    max_cost_nano: int | None = None
    task_id: str | None = None
    dialect: str = "openai_chat"
    forward: dict[str, str] = {}
    array: bool = False
    session: str | None = None
    others: tuple[str, ...] = ()
    whole: bool = False
    stored: Stored | None = None

    @property
    def talk(self) -> msgspec.Raw | None:
        """The conversation as it came: in Chat and Messages, in Responses, in Gemini."""
        members = self.members
        return members.get("messages") or members.get("input") or members.get("contents")


class StreamEvent(msgspec.Struct):
    """One decoded event of an upstream's stream. `pieces` are estimated output tokens (core/tokens.py);
    `finished` maps a choice's index to its finish reason; `in_tool`: it carries a part of a tool call;
    `served`: beside usage, in which tier of service the provider says that it served the call."""

    pieces: int = 0
    has_choices: bool = False
    usage: Usage | None = None
    finished: dict[int, str] = {}
    in_tool: bool = False
    error: bytes | None = None
    served: str | None = None


class Outcome(StrEnum):
    """How a call ended. Only errors are exceptions; a cut and a client that left are outcomes.

    What a task's caps end has an outcome for each kind: dollars, calls, tokens (or the same request again and again)
    and time. TIMEOUT is a provider that took too long.
    """

    COMPLETED = "completed"
    COST_KILLED = "cost_killed"
    STEP_EXHAUSTED = "step_exhausted"
    THRASH_KILLED = "thrash_killed"
    TASK_TIMEOUT = "task_timeout"
    DENIED = "denied"
    CLIENT_GONE = "client_gone"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    API_ERROR = "api_error"
    BAD_REQUEST = "bad_request"
    LEDGER_DOWN = "ledger_down"
    GATEWAY_ERROR = "gateway_error"


class Provenance(StrEnum):
    """Where a figure in dollars comes from; unknown is None in the record, never zero. LIST_PRICE: nobody bills
    it, so it is what that much costs by the list."""

    METERED = "metered"
    ESTIMATED = "estimated"
    CONSERVATIVE = "conservative"
    LIST_PRICE = "list_price"
    FREE = "free"
    UNKNOWN = "unknown"
