"""The policy file's shape: strict models of the YAML, and the JSON Schema that editors read.

Amounts stay dollars and times stay seconds here, as people write them; `policy_compile.py` turns
them into the gateway's integers. What each field means to a reader is its `description`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from app.core.policy import MEASURES, ReplayRules
from app.stores.policy_model_kept import CacheSpec, StoredResponsesSpec
from app.stores.policy_model_pricing import Pricing
from app.stores.policy_model_routes import LandingSpec, RouteSpec
from app.stores.policy_types import (
    PLACEHOLDER,
    AliasPattern,
    BaseUrl,
    Budget,
    Cap,
    HeaderValue,
    ModelName,
    Moment,
    Name,
    NotBool,
    OnCut,
    Parallel,
    Seconds,
    Sha256,
    Share,
    Spec,
    Tokens,
    ToolPattern,
    known_keys,
)

CATALOGUES = "Default: the catalogue's."


class DeadlinesSpec(Spec):
    """Network deadlines, in seconds."""

    connect_secs: Seconds | None = Field(default=None, description="Until the connection stands. Default 10.")
    ttft_secs: Seconds | None = Field(default=None, description="Until the first event. Default 120.")
    idle_secs: Seconds | None = Field(default=None, description="Between two reads. Default 120.")
    write_secs: Seconds | None = Field(default=None, description="For one stalled write to the client. Default 60.")


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
        description="False where litellm cannot read its streams: replies are then asked whole, and nothing is cut.",
    )


class ProviderSpec(Spec):
    """Who is paid."""

    dialect: Literal[DialectName, "litellm"] = Field(
        default="openai_chat", description="The wire protocol it speaks; litellm: one that only litellm translates."
    )
    litellm: BridgeSpec | None = Field(default=None, description="Required where the dialect is litellm.")
    also: list[DialectName] = Field(
        default_factory=list,
        description="Dialects that it serves below the same URL and takes the same key for: their clients' bytes pass.",
    )
    base_url: BaseUrl | None = Field(
        default=None,
        description="Up to and with /v1 (Gemini: /v1beta); /chat/completions, /responses, /messages or "
        "/models/MODEL:generateContent is appended. Required, but where the dialect is litellm, which knows.",
    )
    api_key: HeaderValue | None = Field(
        default=None, repr=False, description="Sent in the dialect's own header; write it as ${VARIABLE}."
    )
    headers: dict[str, HeaderValue] = Field(default_factory=dict, repr=False, description="Sent with every request.")
    query: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Sent behind every path, as Azure's deployments want it: {api-version: 2024-10-21}.",
    )
    optional: bool = Field(default=False, description="If one of its variables is not set, it and its models drop out.")
    bills_after_cancel: bool | None = Field(
        default=None, description="Goes on billing a cancelled stream. Default: by host."
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="Carries the output limit, whatever the client called it. Default: by host, and as the client "
        "called it where both are taken.",
    )
    include_usage: bool | None = Field(
        default=None,
        description="Streams are asked for usage (stream_options); false for servers that refuse to be asked. "
        "Default: by host.",
    )
    takes_reasoning: bool | None = Field(
        default=None,
        description="An assistant's reasoning goes back to it with the conversation; false for servers that refuse it. "
        "Default: by host.",
    )
    any_model: bool = Field(default=False, description="PROVIDER/anything is served without being listed under models.")
    free: bool = Field(default=False, description="Its models cost nothing (your own hardware).")
    catalogue_prefixes: list[str] | None = Field(
        default=None, min_length=1, description="How litellm's catalogue spells its models' names. Default: by host."
    )
    deadlines: DeadlinesSpec = Field(default=DeadlinesSpec(), description="How long to wait for its network.")
    embedded: Literal["smollm2"] | None = Field(default=None, description="The gateway runs this model itself.")

    @property
    def beside(self) -> frozenset[str]:
        """The dialects that it has beside its own. Most servers of Chat have text completions, too; others say 404."""
        every = (self.dialect, *self.also)
        return frozenset((*self.also, "openai_completions") if "openai_chat" in every else self.also)


class BudgetsSpec(Spec):
    """Caps and clocks of one model."""

    max_cost_usd: Budget | None = Field(
        default=None,
        description="Bounds one task's spending on this model. 0: no enforcement. "
        "Left out: min(0.50, 64 * input_per_1k + 32 * output_per_1k).",
    )
    hard_timeout_secs: Seconds = Field(default=600.0, description="A call is ended after this long.")
    expected_ttft_secs: Seconds = Field(default=30.0, description="A slower first token is warned about.")
    expected_ttf_solution_secs: Seconds | None = Field(default=None, description="A slower answer is warned about.")


class ModelSpec(Spec):
    """One provider+model."""

    provider: Name = Field(description="One of `providers`.")
    also_at: list[Name] = Field(
        default_factory=list,
        description="Further providers of it, under the same name: calls are spread over all of them, "
        "tasks keep theirs, and one that fails is passed over.",
    )
    upstream_model: str | None = Field(
        default=None, min_length=1, description="Its name at the provider. Default: our name."
    )
    optional: bool = Field(default=False, description="If one of its variables is not set, it drops out.")
    tier: Annotated[int, Field(ge=1, le=9), NotBool] | None = Field(
        default=None, description="Ability. Default: from the price."
    )
    like: str | None = Field(
        default=None,
        min_length=1,
        description="A well-known model that it resembles (what it was tuned from, what a deployment runs): what is "
        "expected of it starts there. Default: by upstream_model.",
    )
    pricing: Pricing | None = Field(default=None, description="Default: litellm's catalogue.")
    budgets: BudgetsSpec = Field(default=BudgetsSpec(), description="What it may cost a task, and how long.")
    context_tokens: Tokens | None = Field(default=None, description=f"Its context window. {CATALOGUES}")
    max_output_tokens: Tokens | None = Field(default=None, description=f"The longest answer. {CATALOGUES}")
    tools: bool | None = Field(default=None, description=f"Takes tools. {CATALOGUES}")
    vision: bool | None = Field(default=None, description=f"Takes images. {CATALOGUES}")
    json_schema: bool | None = Field(default=None, description=f"Keeps to a JSON schema. {CATALOGUES}")
    hidden_reasoning: bool | None = Field(default=None, description="Bills reasoning tokens that it does not stream.")
    embeddings: bool | None = Field(default=None, description=f"Makes embeddings, not answers. {CATALOGUES}")
    searches: bool | None = Field(default=None, description="Searches the web before every answer, which is billed.")

    @property
    def every_provider(self) -> list[str]:
        """Those that it can be asked at, each once."""
        return list(dict.fromkeys((self.provider, *self.also_at)))


class CapSpec(Spec):
    """One cap."""

    max_cost_usd: Cap = Field(description="Dollars.")


class TaskCapSpec(Spec):
    """Caps of each task, and of all below it. Calls are what is asked of providers, a retry included."""

    max_cost_usd: Cap | None = Field(default=None, description="Dollars, of all its calls together.")
    max_calls: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="How often providers are asked."
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="Input and output of all calls: the guard for models that cost nothing."
    )
    max_seconds: Annotated[float, Field(gt=0, le=10**9), NotBool] | None = Field(
        default=None, description="By the wall clock, from the task's first call."
    )
    max_repeats: Annotated[int, Field(ge=1), NotBool] | None = Field(
        default=None, description="How often one and the same request (its last turns) is served. Default: always."
    )
    max_parallel_requests: Parallel | None = Field(
        default=None, description="Requests at a time. A further one waits a while, then gets a 429."
    )
    idle_days: Annotated[float, Field(ge=1, le=3650), NotBool] = Field(
        default=30.0, description="A task that nobody touches for so long is forgotten; its name is free again."
    )


class RateSpec(Spec):
    """How much may be begun in a minute; what is under way goes on. At least one of the two."""

    max_calls: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="How often providers are asked, retries included."
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None,
        description="Input, as estimated when a call begins, and output, when it ends: none begins once so many are "
        "counted.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> RateSpec:
        if self.max_calls is None and self.max_tokens is None:
            raise PydanticCustomError("rate", "needs max_calls or max_tokens")
        return self


class WindowsSpec(Spec):
    """Caps per hour, day and month by the clock and the calendar (UTC), and in total; a rate per minute; and how many
    requests may run at a time."""

    max_parallel_requests: Parallel | None = Field(
        default=None,
        description="Requests at a time. A further one waits (`ledger.contention_wait_secs`), then gets a 429.",
    )
    minute: RateSpec | None = Field(default=None, description="A limit of rate: beyond it a 429, with Retry-After.")
    hour: CapSpec | None = Field(default=None, description="From full hour to full hour.")
    day: CapSpec | None = Field(default=None, description="From midnight to midnight.")
    month: CapSpec | None = Field(default=None, description="From the first of the month.")
    total: CapSpec | None = Field(default=None, description="Never refills.")


class CapsSpec(Spec):
    """The tightest of all caps that apply wins."""

    request: CapSpec | None = Field(default=None, description="For each request, all of its attempts together.")
    task: TaskCapSpec | None = Field(default=None, description="For each task; a call without one is its own.")
    key: WindowsSpec = Field(default=WindowsSpec(), description="For each key that sets no caps of its own.")
    team: WindowsSpec = Field(default=WindowsSpec(), description="For each team that sets no caps of its own.")
    everyone: WindowsSpec = Field(default=WindowsSpec(), alias="global", description="For all keys together.")


class TeamSpec(Spec):
    """Keys with caps in common: what they spend together. Each key's own caps bind beside them."""

    caps: WindowsSpec | None = Field(default=None, description="Default: those of `caps.team`.")
    routes: list[Name] | None = Field(default=None, description="For its keys that name none. Default: all.")


class KeySpec(Spec):
    """A client's key; `bursar keys new NAME` prints one."""

    name: Name = Field(description="Whose it is: spending and tasks go by this name.")
    sha256: Sha256 = Field(description="The secret's SHA-256; the secret itself stands nowhere.")
    former_sha256: Sha256 | None = Field(
        default=None, description="Of the secret that this one replaces: good, too, until this line is taken out."
    )
    expires: Moment | None = Field(
        default=None, description="From then on it is refused: a time, or a day, whose first moment (UTC) counts."
    )
    admin: bool = Field(default=False, description="May see everybody's calls and spending, and use the dashboard.")
    caps: WindowsSpec | None = Field(default=None, description="Default: those of `caps.key`.")
    team: Name | None = Field(default=None, description="The team whose caps it draws on as well, one of `teams`.")
    routes: list[Name] | None = Field(default=None, description="The routes it may use. Default: its team's, or all.")


class LedgerSpec(Spec):
    """What happens when the ledger does not answer."""

    on_failure: Literal["closed", "open"] = Field(
        default="closed", description="closed: 503. open: up to the allowance."
    )
    open_allowance_usd: Budget = Field(default=0.0, description="For each gateway process, until the ledger is back.")
    contention_wait_secs: Annotated[float, Field(ge=0, le=60), NotBool] = Field(
        default=5.0,
        description="How long a call waits for money that other calls hold, or for one of them to end, before it gets "
        "429.",
    )


class BillsAfterCancelSpec(Spec):
    """Hosts that go on generating, and billing, after a stream is cancelled (their subdomains too)."""

    source: str = Field(min_length=1, description="Where this is documented.")
    hosts: list[str] = Field(description="In place of the built-in list.")


class ReplaySpec(Spec):
    """An edited policy is replayed on recorded traffic before it is taken into force (`bursar replay`)."""

    since: Annotated[str, StringConstraints(pattern=r"^(\d{1,6}[smhdw]|all)$")] = Field(
        default="7d", description="Which traffic: 24h, 7d, all."
    )
    max_cost_increase: Annotated[float, Field(ge=0), NotBool] = Field(
        default=0.1, description="Dollars per decision may be estimated to rise by this share."
    )
    max_success_drop: Share = Field(default=0.02, description="The success rate may be estimated to fall by so much.")
    too_little_data: Literal["accept", "refuse"] = Field(
        default="accept", description="What becomes of a policy of which that cannot be told."
    )
    max_secs: Annotated[float, Field(gt=0, le=600), NotBool] = Field(
        default=30.0, description="After this long it cannot be told."
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
        "The first that fits wins, so that a CLI which insists on its own model can be routed.",
    )
    unknown_model: Name | None = Field(default=None, description="The route for model names that are not known.")
    on_cut: OnCut = Field(default="error", description="How a cut stream ends: an error, or finish_reason `length`.")
    cache: CacheSpec | None = Field(
        default=None, description="A cache of replies (which are then stored, beside the ledger). Default: none."
    )
    stored_responses: StoredResponsesSpec | None = Field(
        default=None, description="Prompts and answers of the Responses API are stored, to be referred to. Default: no."
    )
    ledger: LedgerSpec = Field(default=LedgerSpec(), description="What happens while money cannot be counted.")
    landing: LandingSpec | None = Field(
        default=None, description="How tasks end near their cap. Default: they are cut."
    )
    targets: dict[Name, Annotated[float, Field(ge=0), NotBool]] = Field(
        default_factory=dict,
        json_schema_extra=known_keys(MEASURES),
        description="Where measures of success should stay below (or above, where more is better).",
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
        default=None, description="Who bills on for a stream that was cancelled. Default: a built-in list of hosts."
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
