"""The policy as the gateway uses it: compiled, frozen, one reference per request.

Compiling the YAML (strict parsing, environment variables, prices, errors with file and line) is
`app/stores/policy_file.py`; this module holds only values and the questions asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from app.core.caps import Caps, Users, Windows
from app.core.heard import WRITING_TOOLS
from app.core.landing import Landing
from app.core.money import Price
from app.core.notices import NoticeRules
from app.core.secret import Secret
from app.core.stored import StoreRules
from app.core.windows import CHARS, Window

OnCut = Literal["error", "length"]
Objective = Literal["cheapest_adequate", "quality", "utility"]

LEARNED, HEURISTIC = "learned", "heuristic"
ROUTERS = (LEARNED, HEURISTIC)
"""The routers that a route may name. The heuristic is always there; the learned one where weights are."""
MEASURES = (
    "cost_per_successful_task",
    "cost_per_artifact",
    "task_success_rate",
    "false_done_rate",
    "unsafe_cheap_miss_rate",
    "missed_escalation_rate",
    "cache_hit_rate",
    "tool_call_efficiency",
    "verifier_pass_rate",
    "latency_per_task",
)
"""The measures of success for which targets may be set; `app/learner/measures.py` defines them."""
ANY_TASK = "*"
"""Stands for every task type in `Route.pin`."""

BILLS_AFTER_CANCEL_HOSTS: tuple[str, ...] = (
    "amazonaws.com",  # Bedrock
    "api.groq.com",
    "generativelanguage.googleapis.com",  # Google AI Studio
    "api.mistral.ai",
    "api.perplexity.ai",
    "api.sambanova.ai",
    "nebius.com",  # Token Factory, and AI Studio as it was
    "aliyuncs.com",  # Alibaba: DashScope in all regions, and Model Studio
)
"""Providers that go on generating, and billing, after the client cancels a stream.
Source: https://openrouter.ai/docs/api-reference/streaming (section on cancellation)."""
BILLS_AFTER_CANCEL_BRIDGED: frozenset[str] = frozenset(
    ("bedrock", "bedrock_converse", "sagemaker", "sagemaker_chat", "groq", "gemini", "mistral", "perplexity",
     "sambanova", "nebius", "dashscope")
)  # fmt: skip
"""The same by litellm's names."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Network deadlines of a provider, in seconds: connecting, first event, silence between reads, a stalled write."""

    connect_s: float = 10.0
    ttft_s: float = 120.0
    idle_s: float = 120.0
    write_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Bridge:
    """A provider that litellm translates for: litellm's name for it, what litellm needs to be told (credentials,
    regions), and whether its streams are used."""

    provider: str
    options: Mapping[str, str | int | float | bool] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    streams: bool = True


@dataclass(frozen=True, slots=True)
class ChatHabits:
    """What a provider takes in Chat Completions. `limit_field`: the name of the output limit where the client sent
    none; `only`: it knows the limit by no other name. `include_usage`: its streams are asked for usage; without, they
    tell it unasked, and `stream_options` are refused. `takes_reasoning`: an assistant's thoughts may come back. `fim`:
    text completions are Mistral's way."""

    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    only: bool = False
    include_usage: bool = True
    takes_reasoning: bool = True
    fim: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """Who is paid. `any_model`: `NAME/whatever` is served without being listed. `query` is sent behind every path.
    `also`: further dialects below its base URL; text completions are one where it speaks Chat. `bills`: it wants money,
    and has not a list price alone. `openai`: it is OpenAI itself, which knows every member of its dialects;
    `openrouter`: it is OpenRouter. `bridge`: it is asked through litellm, in chat; its base URL may be empty.
    `responses_least_tokens`: the smallest output limit that it takes in Responses."""

    name: str
    dialect: str
    base_url: str
    api_key: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    query: Secret | None = None
    bills: bool = True
    bills_after_cancel: bool = False
    chat: ChatHabits = ChatHabits()
    any_model: bool = False
    free: bool = False
    catalogue_prefixes: tuple[str, ...] = ("",)
    deadlines: Deadlines = Deadlines()
    embedded: str | None = None
    also: frozenset[str] = frozenset()
    bridge: Bridge | None = None
    responses_least_tokens: int = 1
    openai: bool = False
    openrouter: bool = False

    def url(self, path: str) -> str:
        """Where a path of its dialect is asked."""
        url = self.base_url.rstrip("/") + path
        return f"{url}{'&' if '?' in path else '?'}{self.query.value}" if self.query else url

    def least_tokens(self, dialect: str) -> int:
        """The smallest output limit that it takes from a client of this dialect."""
        least = self.responses_least_tokens
        return least if least > 1 and self.speaking_with(dialect) == "openai_responses" else 1

    def speaking_with(self, dialect: str) -> str:
        """The dialect to speak for a client of this one: the same where the provider knows it, so that bytes pass."""
        return dialect if dialect in self.also else self.dialect


@dataclass(frozen=True, slots=True)
class ModelBudget:
    """Caps and clocks of one model. `max_cost_nano` bounds one task's spending on it; None: no
    enforcement, a passive tally. The `expected_*` only warn."""

    max_cost_nano: int | None
    hard_timeout_s: float = 600.0
    expected_ttft_s: float = 30.0
    expected_ttf_solution_s: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can take. None: unknown, taken as yes (or unlimited). `searches`: it searches the web for whatever
    it is asked, which is billed each time."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    hidden_reasoning: bool = False
    embeddings: bool = False
    searches: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One provider+model with price, budget and capabilities: the arm the router chooses. `like`: a model of a
    known name that it resembles, where its own name says nothing. `copies`: the same model at each of its providers,
    where it has several; to the router and the ledger they are one. `circuit`: the name of its breaker."""

    name: str
    provider: Provider
    upstream_model: str
    tier: int
    price: Price | None
    budget: ModelBudget
    capabilities: Capabilities = Capabilities()
    listed: bool = True
    like: str | None = None
    copies: tuple[Candidate, ...] = ()
    is_copy: bool = False

    @property
    def circuit(self) -> str:
        return f"{self.name} at {self.provider.name}" if self.is_copy else self.name  # no model is called that

    def is_named(self, model: str) -> bool:
        """Whether a client that asks for this has the provider's own name in mind."""
        return model.removeprefix(f"{self.provider.name}/") == self.upstream_model


@dataclass(frozen=True, slots=True)
class Retries:
    """Before the first event: how often one candidate is asked again, and the waits in seconds (full jitter)."""

    attempts: int = 1
    base_s: float = 0.25
    max_wait_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Explore:
    """How much may be tried to learn: the share of calls, and what may be spent so in a day (UTC), by all who share a
    ledger; and the task types of which nothing is."""

    share: float
    day_nano: int
    never_for: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Baseline:
    """The candidate that a route keeps to, kind of work by kind, until another is better with the probability `sure`
    by what was learned."""

    model: str
    sure: float = 0.95


@dataclass(frozen=True, slots=True)
class Route:
    """A name that clients put into `model`, the candidates it may choose from, and how it chooses.

    `objective`: the cheapest with P(success) >= `adequacy`; or the best P(success) whose expected cost is within
    `max_expected_nano`; or the largest P(success) * `success_value_nano` - expected cost. `pin`: the model of a
    task type, or of ANY_TASK, which no score moves. `router`: whose scores decide (None: the learned router's
    where there is one); `split`: or the shares of traffic that each router decides, by its name.
    """

    name: str
    candidates: tuple[str, ...]
    adequacy: float = 0.8
    min_confidence: float = 0.7
    fallback: tuple[str, ...] = ()
    retries: Retries = Retries()
    on_cut: OnCut | None = None
    objective: Objective = "cheapest_adequate"
    max_expected_nano: int | None = None
    success_value_nano: int | None = None
    pin: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    router: str | None = None
    split: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    switch_in_tool_loop: bool = False
    explore: Explore | None = None
    baseline: Baseline | None = None
    landing: Landing | None = None


@dataclass(frozen=True, slots=True)
class Team:
    """Keys that share windows of their own, beside each key's and everybody's."""

    name: str
    caps: Windows | None = None
    routes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key, known by its SHA-256 only. `former_sha256`: of the secret it had before, where that is still
    good. `judges`: it gives feedback on any key's calls, and may do nothing else. `routes`: its own, else its team's;
    None: all. `expires_s`: Unix time from which it is refused. `users`: how its end users are bound, where not as all
    keys' are. `probes`: it may send probes, and is believed on them."""

    name: str
    sha256: str
    admin: bool = False
    judges: bool = False
    caps: Windows | None = None
    routes: tuple[str, ...] | None = None
    team: str | None = None
    former_sha256: str | None = None
    expires_s: float | None = None
    users: Users | None = None
    probes: bool = False


@dataclass(frozen=True, slots=True)
class LedgerRules:
    """What happens when the ledger does not answer: closed (503), or open up to an allowance per
    gateway process until it is back."""

    on_failure: Literal["closed", "open"] = "closed"
    open_allowance_nano: int = 0
    contention_wait_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """What an edited policy must come to on the traffic recorded `since`, before it is taken into force: at most
    `max_cost_rise` dearer, as a share, and `max_success_drop` less successful, in shares of decisions. Where that
    cannot be told, or not within `max_s`, `untold` says whether it is taken."""

    since: str = "7d"
    max_cost_rise: float = 0.1
    max_success_drop: float = 0.02
    untold: Literal["accept", "refuse"] = "accept"
    max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the operator decides. `version` is a digest of the source text, for decisions and traces;
    `source` is the path it was read from; `keys` is keyed by the SHA-256 that is looked up for a request, of which a
    key may have two; `writing_tools`: patterns of tools' names whose call is an attempt at a task, in small letters;
    `cache_s`: how long replies are kept for requests that come again, `stored_responses`: how responses are for those
    that refer to them, `notices`: what people are told of, None: not at all;
    `targets`: where measures of success (MEASURES) should stay below, or above where more is better."""

    version: str
    source: str
    providers: Mapping[str, Provider]
    models: Mapping[str, Candidate]
    routes: Mapping[str, Route]
    caps: Caps = Caps()
    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))
    teams: Mapping[str, Team] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unknown_model: str | None = None
    on_cut: OnCut = "error"
    cache_s: float | None = None
    stored_responses: StoreRules | None = None
    notices: NoticeRules | None = None
    ledger: LedgerRules = LedgerRules()
    targets: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    require_replay: ReplayRules | None = None
    landing: Landing | None = None
    writing_tools: tuple[str, ...] = WRITING_TOOLS
    prices_version: str = ""
    warnings: tuple[str, ...] = ()

    def meant_by(self, name: str) -> str:
        """What a name that a client asks for stands for: itself, where no alias fits."""
        return next((meant for pattern, meant in self.aliases.items() if fnmatchcase(name, pattern)), name)

    def landing_on(self, route: str | None) -> Landing | None:
        """How tasks land on this route: by its own rules, else by those for all; None: they do not."""
        found = None if route is None else self.routes.get(route)
        return self.landing if found is None or found.landing is None else found.landing

    def circuits(self) -> dict[str, Candidate]:
        """Who is asked by which circuit: each model, and of one that has copies each of these."""
        return {one.circuit: one for model in self.models.values() for one in model.copies or (model,)}

    @property
    def open_access(self) -> bool:
        """True when no keys are set: anyone who can connect may spend, so loopback only."""
        return not self.keys

    def named_keys(self) -> dict[str, Key]:
        """Each key once, by its name."""
        return {key.name: key for key in self.keys.values()}

    def finest_window(self) -> Window:
        """The shortest window of all caps."""
        own = [*(key.caps for key in self.keys.values()), *(team.caps for team in self.teams.values())]
        caps = [self.caps.key, self.caps.team, self.caps.everyone, *(windows for windows in own if windows is not None)]
        caps += [users.windows for users in self._users()]
        return max((windows.finest for windows in caps), key=CHARS.__getitem__)

    def _users(self) -> list[Users]:
        every = (self.caps.user, *(key.users for key in self.keys.values()))
        return [users for users in every if users is not None]

    def counts_users(self) -> bool:
        """Whether any key's end users are told apart."""
        return bool(self._users())

    def users_of(self, key: Key | None) -> Users | None:
        """How this key's end users are bound: by its own rules, else the policy's; None: they are not told apart."""
        return self.caps.user if key is None or key.users is None else key.users

    def key_windows(self, key: Key | None) -> Windows:
        """The windows that bind this key: its own, else the policy's for every key."""
        return self.caps.key if key is None or key.caps is None else key.caps

    def team_windows(self, name: str) -> Windows:
        """The windows that bind all keys of this team together: its own, else the policy's for every team."""
        team = self.teams.get(name)
        return self.caps.team if team is None or team.caps is None else team.caps
