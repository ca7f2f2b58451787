"""The policy file's shape: strict models of the YAML, and the JSON Schema that editors read.

Amounts stay dollars and times stay seconds here, as people write them; `policy_compile.py` turns
them into the gateway's integers. What each field means to a reader is its `description`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.core.policy import MEASURES, ReplayRules
from app.stores.policy_model_caps import CapsSpec, KeySpec, TeamSpec
from app.stores.policy_model_kept import CacheSpec, NoticesSpec, StoredResponsesSpec
from app.stores.policy_model_pricing import Pricing
from app.stores.policy_model_routes import LandingSpec, RouteSpec
from app.stores.policy_types import (
    PLACEHOLDER,
    AliasPattern,
    BaseUrl,
    Budget,
    HeaderValue,
    ModelName,
    Name,
    NotBool,
    OnCut,
    Seconds,
    Share,
    Spec,
    Tokens,
    ToolPattern,
    known_keys,
)

CATALOGUES = "Default: the catalogue's."


class DeadlinesSpec(Spec):
    """Network deadlines, in seconds."""

    connect_secs: Seconds | None = Field(default=None, description="Until the connection is made. Default: 10.")
    ttft_secs: Seconds | None = Field(default=None, description="Until the first event. Default: 120.")
    idle_secs: Seconds | None = Field(default=None, description="Between two reads. Default: 120.")
    write_secs: Seconds | None = Field(default=None, description="For one stalled write to the client. Default: 60.")


DialectName = Literal["openai_chat", "openai_responses", "anthropic", "gemini"]


class BridgeSpec(Spec):
    """How litellm asks this provider."""

    provider: Name = Field(
        description="litellm's name for it: bedrock, vertex_ai, cohere_chat, ... (https://docs.litellm.ai/docs/providers)."
    )
    options: dict[Name, str | bool | int | float] = Field(
        default_factory=dict, repr=False, description="Credentials, regions and the like, by litellm's names for them."
    )
    streams: bool = Field(
        default=True,
        description="False if litellm cannot read its streams: replies are then asked for whole, and nothing is cut.",
    )


class ProviderSpec(Spec):
    """Who is paid."""

    dialect: Literal[DialectName, "litellm"] = Field(
        default="openai_chat",
        description="The protocol it speaks; `litellm`: one of its own, which litellm translates.",
    )
    litellm: BridgeSpec | None = Field(default=None, description="Required where the dialect is litellm.")
    also: list[DialectName] = Field(
        default_factory=list,
        description=(
            "Further dialects that it serves under the same URL with the same key: bytes of their clients pass "
            "unchanged."
        ),
    )
    base_url: BaseUrl | None = Field(
        default=None,
        description="Up to and with /v1 (Gemini: /v1beta); /chat/completions, /responses, /messages or "
        "/models/MODEL:generateContent is appended. Required, unless the dialect is litellm.",
    )
    api_key: HeaderValue | None = Field(
        default=None, repr=False, description="Sent in the dialect's own header; write it as ${VARIABLE}."
    )
    headers: dict[str, HeaderValue] = Field(default_factory=dict, repr=False, description="Sent with every request.")
    query: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Appended to every path, as Azure's deployments want it: {api-version: 2024-10-21}.",
    )
    optional: bool = Field(
        default=False, description="If one of its variables is not set, the provider and its models are left out."
    )
    bills: bool = Field(
        default=True,
        description="False if it sends no bill for what is used (your own hardware, a flat rate) and its models have "
        "a price all the same: caps hold for it, and records say `list_price` of where the cost comes from.",
    )
    bills_after_cancel: bool | None = Field(
        default=None, description="It goes on billing after a stream is cancelled. Default: by host."
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description=(
            "The field that carries the output limit, whatever the client called it. Default: by host, or as the "
            "client called it if the host takes both."
        ),
    )
    include_usage: bool | None = Field(
        default=None,
        description="Streams are asked for usage (stream_options); false for servers that refuse to be asked. "
        "Default: by host.",
    )
    takes_reasoning: bool | None = Field(
        default=None,
        description=(
            "Whether an assistant's reasoning is sent back to it with the conversation; false for servers that refuse "
            "that. Default: by host."
        ),
    )
    any_model: bool = Field(
        default=False, description="Clients may ask for PROVIDER/anything, listed under models or not."
    )
    free: bool = Field(default=False, description="Its models cost nothing (your own hardware).")
    catalogue_prefixes: list[str] | None = Field(
        default=None, min_length=1, description="How litellm's catalogue spells its models' names. Default: by host."
    )
    deadlines: DeadlinesSpec = Field(default=DeadlinesSpec(), description="How long to wait for its network.")
    embedded: Literal["smollm2"] | None = Field(
        default=None, description="The gateway runs this provider's model itself."
    )

    @property
    def beside(self) -> frozenset[str]:
        """The dialects that it has beside its own. Most servers of Chat have text completions, too; others say 404."""
        every = (self.dialect, *self.also)
        return frozenset((*self.also, "openai_completions") if "openai_chat" in every else self.also)


class BudgetsSpec(Spec):
    """Caps and clocks of one model."""

    max_cost_usd: Budget | None = Field(
        default=None,
        description=(
            "What one task may spend on this model. 0: not enforced. Left out: min(0.50, 64 * input_per_1k + 32 * "
            "output_per_1k)."
        ),
    )
    hard_timeout_secs: Seconds = Field(default=600.0, description="A call is ended after this long.")
    expected_ttft_secs: Seconds = Field(default=30.0, description="A first token that comes later is warned about.")
    expected_ttf_solution_secs: Seconds | None = Field(
        default=None, description="An answer that takes longer is warned about."
    )


class ModelSpec(Spec):
    """One provider+model."""

    provider: Name = Field(description="One of `providers`.")
    also_at: list[Name] = Field(
        default_factory=list,
        description=(
            "Further providers of this model: calls are spread over all of them, a task stays with one, and one that "
            "fails is passed over."
        ),
    )
    upstream_model: str | None = Field(
        default=None, min_length=1, description="Its name at the provider. Default: the name here."
    )
    optional: bool = Field(default=False, description="If one of its variables is not set, the model is left out.")
    tier: Annotated[int, Field(ge=1, le=9), NotBool] | None = Field(
        default=None, description="How able it is. Default: from the price."
    )
    like: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "A well-known model that it resembles (the one it was tuned from, or that a deployment runs); its scores "
            "start from that one's. Default: by upstream_model."
        ),
    )
    pricing: Pricing | None = Field(default=None, description="Default: litellm's catalogue.")
    budgets: BudgetsSpec = Field(
        default=BudgetsSpec(), description="What it may cost a task, and how long it may take."
    )
    context_tokens: Tokens | None = Field(default=None, description=f"Its context window. {CATALOGUES}")
    max_output_tokens: Tokens | None = Field(default=None, description=f"The longest answer. {CATALOGUES}")
    tools: bool | None = Field(default=None, description=f"Takes tools. {CATALOGUES}")
    vision: bool | None = Field(default=None, description=f"Takes images. {CATALOGUES}")
    json_schema: bool | None = Field(default=None, description=f"Keeps to a JSON schema. {CATALOGUES}")
    hidden_reasoning: bool | None = Field(
        default=None, description="It bills reasoning tokens that it does not stream."
    )
    embeddings: bool | None = Field(default=None, description=f"Makes embeddings, not answers. {CATALOGUES}")
    searches: bool | None = Field(default=None, description="Searches the web before every answer, which is billed.")

    @property
    def every_provider(self) -> list[str]:
        """Those that it can be asked at, each once."""
        return list(dict.fromkeys((self.provider, *self.also_at)))


class LedgerSpec(Spec):
    """What happens when the ledger does not answer."""

    on_failure: Literal["closed", "open"] = Field(
        default="closed", description="closed: 503. open: up to the allowance."
    )
    open_allowance_usd: Budget = Field(
        default=0.0, description="Dollars for each gateway process, until the ledger is back."
    )
    contention_wait_secs: Annotated[float, Field(ge=0, le=60), NotBool] = Field(
        default=5.0,
        description="How long a call waits for money that other calls hold, or for its turn, before it gets a 429.",
    )


class BillsAfterCancelSpec(Spec):
    """Hosts that go on generating, and billing, after a stream is cancelled (their subdomains too)."""

    source: str = Field(min_length=1, description="Where this is documented.")
    hosts: list[str] = Field(description="These replace the built-in list.")


class ReplaySpec(Spec):
    """An edited policy is replayed on recorded traffic before it is taken into force (`bursar replay`)."""

    since: Annotated[str, StringConstraints(pattern=r"^(\d{1,6}[smhdw]|all)$")] = Field(
        default="7d", description="Which traffic: 24h, 7d, all."
    )
    max_cost_increase: Annotated[float, Field(ge=0), NotBool] = Field(
        default=0.1, description="The share by which the estimated dollars per decision may rise."
    )
    max_success_drop: Share = Field(default=0.02, description="By how much the estimated success rate may fall.")
    too_little_data: Literal["accept", "refuse"] = Field(
        default="accept", description="What happens to a policy for which this cannot be estimated."
    )
    max_secs: Annotated[float, Field(gt=0, le=600), NotBool] = Field(
        default=30.0, description="After this long it counts as not estimated."
    )

    @property
    def rules(self) -> ReplayRules:
        """As the policy in force has it."""
        return ReplayRules(
            self.since, self.max_cost_increase, self.max_success_drop, self.too_little_data, self.max_secs
        )


class PolicySpec(Spec):
    """Bursar's policy: who is paid, for which models, under which caps. Edited live."""

    version: Literal[1] = Field(description="The format of this file: 1.")
    # Emptiness is checked on the file: optional providers may leave none, which is a warning.
    providers: dict[Name, ProviderSpec] = Field(
        json_schema_extra={"minProperties": 1}, description="By a name of your choice."
    )
    models: dict[ModelName, ModelSpec] = Field(default_factory=dict, description="By the name that clients ask for.")
    routes: dict[Name, RouteSpec] = Field(default_factory=dict, description="Names that stand for a choice of models.")
    caps: CapsSpec = Field(default=CapsSpec(), description="What may be spent.")
    teams: dict[Name, TeamSpec] = Field(default_factory=dict, description="Groups of keys, by name.")
    keys: list[KeySpec] = Field(default_factory=list, description="Clients' keys. None: served on this machine only.")
    aliases: dict[AliasPattern, ModelName] = Field(
        default_factory=dict,
        description="What clients' names for models stand for: a pattern with * and ?; a route, a model or tier:N. "
        "The first that fits wins. For programs that insist on their maker's models.",
    )
    unknown_model: Name | None = Field(default=None, description="The route for model names that are not known.")
    on_cut: OnCut = Field(default="error", description="How a cut stream ends: an error, or finish_reason `length`.")
    cache: CacheSpec | None = Field(
        default=None,
        description="Keep whole replies (beside the ledger) and give them again to identical requests. Default: no.",
    )
    stored_responses: StoredResponsesSpec | None = Field(
        default=None,
        description="Store prompts and answers of the Responses API, so that requests can refer to them. Default: no.",
    )
    notices: NoticesSpec | None = Field(
        default=None, description="Tell people of budgets that are nearly spent and tasks that were cut. Default: no."
    )
    ledger: LedgerSpec = Field(default=LedgerSpec(), description="What happens while money cannot be counted.")
    landing: LandingSpec | None = Field(
        default=None, description="How tasks end near their cap. Default: they are cut."
    )
    targets: dict[Name, Annotated[float, Field(ge=0), NotBool]] = Field(
        default_factory=dict,
        json_schema_extra=known_keys(MEASURES),
        description="The value that each measure of success should stay below (or above, if more is better).",
    )
    require_replay: ReplaySpec | None = Field(
        default=None, description="Refuse an edit that would cost more or succeed less on recorded traffic."
    )
    writing_tools: list[ToolPattern] | None = Field(
        default=None,
        description="Tools whose call is a first attempt at a task, by name: patterns with * and ?, without regard to "
        "case. Default: those that change files in well-known agents; shells are not among them.",
    )
    bills_after_cancel: BillsAfterCancelSpec | None = Field(
        default=None, description="Hosts that go on billing after a stream is cancelled. Default: a built-in list."
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, in which every value may also be a `${VARIABLE}`."""
    schema = PolicySpec.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    schema["patternProperties"] = {"^x-": {"description": "Yours: anchors, notes. Not read."}}
    return {key: _with_placeholders(value) for key, value in schema.items()}


def _with_placeholders(node: Any) -> Any:
    """The same schema, where what is not free text may also be a text that holds a placeholder."""
    if isinstance(node, list):
        return [_with_placeholders(item) for item in node]
    if not isinstance(node, dict):
        return node
    constrained = {"pattern", "enum", "const"} & node.keys()
    if node.get("type") in {"number", "integer", "boolean"} or (node.get("type") == "string" and constrained):
        kept = {key: node[key] for key in ("title", "description", "default") if key in node}
        typed = {key: value for key, value in node.items() if key not in kept}
        return {**kept, "anyOf": [typed, {"type": "string", "pattern": PLACEHOLDER}]}
    return {key: _with_placeholders(value) for key, value in node.items()}
