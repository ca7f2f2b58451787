"""From the policy as people write it to the policy as the gateway uses it: integers, defaults, prices.

Pure: what it needs (the checked spec, the catalogue, what has dropped out) are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, TypeVar
from urllib.parse import urlencode, urlsplit

from app.core.heard import WRITING_TOOLS
from app.core.money import FREE, Price, Rates, default_model_cap, nano_from_usd, price_from_usd_per_1k
from app.core.policy import (
    BILLS_AFTER_CANCEL_BRIDGED,
    BILLS_AFTER_CANCEL_HOSTS,
    Bridge,
    Candidate,
    Capabilities,
    ChatHabits,
    Deadlines,
    LedgerRules,
    ModelBudget,
    Policy,
    Provider,
)
from app.core.secret import Secret
from app.stores.policy_caps import caps_of, keys_of, teams_of
from app.stores.policy_model import BridgeSpec, BudgetsSpec, DeadlinesSpec, ModelSpec, PolicySpec, ProviderSpec
from app.stores.policy_model_pricing import PricingSpec, RatesSpec
from app.stores.policy_routes import compile_route, landing_of, pins_of
from app.stores.prices import Catalogue, Entry
from routers.base import tier_of_rates

OPENAI_HOST, OPENROUTER_HOST = "api.openai.com", "openrouter.ai"
COMPLETION_TOKENS_HOSTS = (OPENAI_HOST, "openai.azure.com")
"""Here `max_tokens` is deprecated and refused by reasoning models:
https://platform.openai.com/docs/api-reference/chat/create#chat-create-max_completion_tokens"""

MAX_TOKENS_HOSTS = ("api.deepseek.com", "api.mistral.ai")
"""These know no other name: DeepSeek passes over `max_completion_tokens`
(https://github.com/earendil-works/pi/issues/8018), Mistral answers 422
(https://github.com/editor-code-assistant/eca/issues/231)."""

NO_STREAM_OPTIONS_HOSTS = ("api.mistral.ai",)
"""These refuse `stream_options.include_usage` with 422, and tell usage at the end of every stream
(https://github.com/openai/openai-agents-python/issues/442)."""

NO_REASONING_HOSTS = ("api.cerebras.ai", "api.groq.com", "api.mistral.ai")
"""These refuse a message with the `reasoning_content` that they, or others, have answered with
(https://github.com/tashfeenahmed/freellmapi/issues/1070, https://github.com/QwenLM/qwen-code/issues/11045,
https://github.com/charmbracelet/crush/issues/1590)."""

RESPONSES_LEAST_TOKENS = 16
"""What those hosts take as `max_output_tokens` at the least; they refuse less with `integer_below_min_value`:
https://platform.openai.com/docs/api-reference/responses/create#responses-create-max_output_tokens"""

CATALOGUE_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "api.cerebras.ai": ("cerebras/",),
    "api.deepinfra.com": ("deepinfra/",),
    "api.deepseek.com": ("deepseek/",),
    "api.fireworks.ai": ("fireworks_ai/", "fireworks_ai/accounts/fireworks/models/"),
    "api.groq.com": ("groq/",),
    "api.mistral.ai": ("mistral/",),
    "api.perplexity.ai": ("perplexity/",),
    "api.sambanova.ai": ("sambanova/",),
    "api.together.ai": ("together_ai/",),
    "api.together.xyz": ("together_ai/",),
    "api.x.ai": ("xai/",),
    "generativelanguage.googleapis.com": ("gemini/",),
    "openai.azure.com": ("azure/", ""),
    "openrouter.ai": ("openrouter/",),
}
"""How litellm's catalogue spells the models of a host. Of any other host: as the host does."""


@dataclass(frozen=True, slots=True)
class DroppedOut:
    """Optional providers whose variables are not set, with those; models, with their provider and their own
    unset variables (none: it is the provider's fault)."""

    providers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


def compile_policy(spec: PolicySpec, *, version: str, source: str, catalogue: Catalogue, dropped: DroppedOut) -> Policy:
    """The policy in force, from a checked spec without what dropped out (routes may still name that)."""
    hosts = spec.bills_after_cancel.hosts if spec.bills_after_cancel else BILLS_AFTER_CANCEL_HOSTS
    providers = {name: _provider(name, given, hosts) for name, given in spec.providers.items()}
    models = {
        name: _candidate(name, given, [providers[at] for at in given.every_provider if at in providers], catalogue)
        for name, given in spec.models.items()
    }
    every_route = {name: compile_route(name, given, models) for name, given in spec.routes.items()}
    routes = {name: route for name, route in every_route.items() if route.candidates}
    policy = Policy(
        version=version,
        source=source,
        providers=MappingProxyType(providers),
        models=MappingProxyType(models),
        routes=MappingProxyType(routes),
        caps=caps_of(spec.caps),
        keys=MappingProxyType(keys_of(spec, routes)),
        teams=MappingProxyType(teams_of(spec, routes)),
        aliases=MappingProxyType(
            {
                pattern: meant
                for pattern, meant in spec.aliases.items()
                if meant in routes or meant in models or meant.startswith("tier:")
            }
        ),
        unknown_model=spec.unknown_model if spec.unknown_model in routes else None,
        on_cut=spec.on_cut,
        cache_s=None if spec.cache is None else spec.cache.ttl_secs,
        stored_responses=None if spec.stored_responses is None else spec.stored_responses.rules,
        notices=None if spec.notices is None else spec.notices.rules,
        ledger=LedgerRules(
            on_failure=spec.ledger.on_failure,
            open_allowance_nano=nano_from_usd(spec.ledger.open_allowance_usd),
            contention_wait_s=spec.ledger.contention_wait_secs,
        ),
        landing=landing_of(spec.landing),
        writing_tools=_writing_tools(spec.writing_tools),
        targets=MappingProxyType(dict(spec.targets)),
        require_replay=None if spec.require_replay is None else spec.require_replay.rules,
        prices_version=catalogue.version,
    )
    return replace(policy, warnings=tuple(_warnings(spec, policy, dropped, catalogue)))


def unlisted_candidate(provider: Provider, upstream_model: str, catalogue: Catalogue) -> Candidate:
    """The candidate for `PROVIDER/upstream_model` at a provider with `any_model`; price None if not catalogued."""
    name = f"{provider.name}/{upstream_model}"
    given = ModelSpec(provider=provider.name, upstream_model=upstream_model)
    return replace(_candidate(name, given, [provider], catalogue), listed=False)


def tier_of(price: Price | None) -> int:
    """The tier of a model whose policy names none, from its price."""
    return tier_of_rates(price.base.input, price.base.output) if price else tier_of_rates(None, None)


def host_matches(host: str, listed: str) -> bool:
    """True for the listed host itself and for its subdomains."""
    return host == listed or host.endswith("." + listed)


def _provider(name: str, given: ProviderSpec, billing_hosts: Iterable[str]) -> Provider:
    host = urlsplit(given.base_url or "").hostname or ""
    bridge = _bridge(given.litellm)
    bills = given.bills_after_cancel
    if bills is None:
        bills = any(host_matches(host, listed.lower()) for listed in billing_hosts)
        # What comes whole cannot be cut, and is paid for whole.
        bills = bills or (bridge is not None and (bridge.provider in BILLS_AFTER_CANCEL_BRIDGED or not bridge.streams))
    prefixes = given.catalogue_prefixes
    if prefixes is None and bridge is not None:
        prefixes = [f"{bridge.provider}/", ""]
    if prefixes is None:
        prefixes = list(next((p for at, p in CATALOGUE_PREFIXES.items() if host_matches(host, at)), ("",)))
    return Provider(
        name=name,
        dialect="openai_chat" if bridge is not None else given.dialect,
        base_url=given.base_url or "",
        api_key=Secret(given.api_key) if given.api_key else None,
        headers=MappingProxyType(dict(given.headers)),
        query=Secret(urlencode(given.query)) if given.query else None,
        bills=given.bills,
        bills_after_cancel=bills,
        chat=_chat_habits(given, host),
        any_model=given.any_model,
        free=given.free,
        catalogue_prefixes=tuple(prefixes),
        deadlines=_deadlines(given.deadlines),
        embedded=given.embedded,
        also=given.beside,
        bridge=bridge,
        responses_least_tokens=RESPONSES_LEAST_TOKENS if _is_openai(host) else 1,
        openai=host_matches(host, OPENAI_HOST),
        openrouter=host_matches(host, OPENROUTER_HOST),
    )


def _bridge(given: BridgeSpec | None) -> Bridge | None:
    if given is None:
        return None
    return Bridge(given.provider, MappingProxyType(dict(given.options)), given.streams)


def _chat_habits(given: ProviderSpec, host: str) -> ChatHabits:
    field: Literal["max_tokens", "max_completion_tokens"] = (
        "max_completion_tokens" if _is_openai(host) else "max_tokens"
    )
    return ChatHabits(
        given.limit_field or field,
        only=given.limit_field is not None or _is_one_of(host, MAX_TOKENS_HOSTS),
        include_usage=_said(given.include_usage, not _is_one_of(host, NO_STREAM_OPTIONS_HOSTS)),
        takes_reasoning=_said(given.takes_reasoning, not _is_one_of(host, NO_REASONING_HOSTS)),
        fim=host_matches(host, "mistral.ai"),
    )


def _said(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _is_one_of(host: str, hosts: Iterable[str]) -> bool:
    return any(host_matches(host, listed) for listed in hosts)


def _is_openai(host: str) -> bool:
    return _is_one_of(host, COMPLETION_TOKENS_HOSTS)


def _deadlines(given: DeadlinesSpec) -> Deadlines:
    default = Deadlines()
    return Deadlines(
        connect_s=given.connect_secs or default.connect_s,
        ttft_s=given.ttft_secs or default.ttft_s,
        idle_s=given.idle_secs or default.idle_s,
        write_s=given.write_secs or default.write_s,
    )


def _candidate(name: str, given: ModelSpec, at: Sequence[Provider], catalogue: Catalogue) -> Candidate:
    provider = at[0]
    upstream_model = given.upstream_model or name
    # A free provider is the operator's own: a namesake in the catalogue has other limits and a price.
    entry = None if provider.free else catalogue.find(provider, upstream_model)
    price = _price(given, provider, entry)
    candidate = Candidate(
        name=name,
        provider=provider,
        upstream_model=upstream_model,
        tier=given.tier or tier_of(price),
        price=price,
        budget=_budget(given.budgets, price),
        capabilities=_capabilities(given, entry.capabilities if entry else Capabilities()),
        like=given.like,
    )
    if len(at) == 1:
        return candidate
    return replace(candidate, copies=tuple(_copy(candidate, given, one, catalogue) for one in at))


def _copy(candidate: Candidate, given: ModelSpec, at: Provider, catalogue: Catalogue) -> Candidate:
    """The same model at one of its providers, where it may have another price: nothing is given away because one of
    them is free. Where the catalogue does not know it there, it costs what it does elsewhere."""
    price = _price(given, at, None if at.free else catalogue.find(at, candidate.upstream_model))
    if price is None and not candidate.provider.free:
        price = candidate.price
    return replace(candidate, provider=at, price=price, budget=_budget(given.budgets, price), is_copy=True)


def _price(given: ModelSpec, provider: Provider, entry: Entry | None) -> Price | None:
    """The policy's own price first, then the provider's being free, then the catalogue; else unknown."""
    if isinstance(given.pricing, PricingSpec):
        base = _rates(given.pricing)
        tiers = ((tier.above_tokens, _rates(tier, base)) for tier in given.pricing.tiers)
        fees = dict(entry.price.tool_fees) if entry is not None and entry.price is not None else {}
        fees |= {tool: nano_from_usd(usd) for tool, usd in given.pricing.tool_fees.items()}
        ordered = tuple(sorted(tiers, key=lambda tier: tier[0]))
        uses = tuple(given.pricing.tool_uses.items())
        price = Price(base, ordered, source="policy", tool_fees=tuple(fees.items()), tool_uses=uses)
        served = {tier: price.times(Decimal(str(factor))) for tier, factor in given.pricing.service_tiers.items()}
        return replace(price, service_tiers=tuple(served.items()))
    if given.pricing == "free" or provider.free:
        return FREE
    return entry.price if entry else None


def _rates(given: RatesSpec, base: Rates | None = None) -> Rates:
    def rate(usd_per_1k: float | None, otherwise: int | None) -> int | None:
        return otherwise if usd_per_1k is None else price_from_usd_per_1k(usd_per_1k)

    return Rates(
        input=price_from_usd_per_1k(given.input_per_1k),
        output=price_from_usd_per_1k(given.output_per_1k),
        cache_read=rate(given.cache_read_per_1k, base.cache_read if base else None),
        cache_write=rate(given.cache_write_per_1k, base.cache_write if base else None),
        cache_write_1h=rate(given.cache_write_1h_per_1k, base.cache_write_1h if base else None),
        # Undeclared reasoning is this tier's output rate, never the base's reasoning rate.
        reasoning=rate(given.reasoning_per_1k, None),
        audio_input=rate(given.audio_input_per_1k, base.audio_input if base else None),
        audio_output=rate(given.audio_output_per_1k, base.audio_output if base else None),
        image_output=rate(given.image_output_per_1k, base.image_output if base else None),
    )


def _budget(given: BudgetsSpec, price: Price | None) -> ModelBudget:
    """Omitted, 0 and above 0 are three things: the formula, no enforcement, the cap. Free models have none."""
    if price is not None and price.free:
        cap = None
    elif given.max_cost_usd is None:
        cap = None if price is None else default_model_cap(price)
    else:
        cap = nano_from_usd(given.max_cost_usd) or None
    return ModelBudget(
        max_cost_nano=cap,
        hard_timeout_s=given.hard_timeout_secs,
        expected_ttft_s=given.expected_ttft_secs,
        expected_ttf_solution_s=given.expected_ttf_solution_secs,
    )


T = TypeVar("T")


def _first(said: T | None, otherwise: T) -> T:
    return otherwise if said is None else said


def _capabilities(given: ModelSpec, known: Capabilities) -> Capabilities:
    """What the policy says, and where it says nothing, what the catalogue knows."""

    return Capabilities(
        context_tokens=_first(given.context_tokens, known.context_tokens),
        max_output_tokens=_first(given.max_output_tokens, known.max_output_tokens),
        tools=_first(given.tools, known.tools),
        vision=_first(given.vision, known.vision),
        json_schema=_first(given.json_schema, known.json_schema),
        hidden_reasoning=_first(given.hidden_reasoning, known.hidden_reasoning),
        embeddings=_first(given.embeddings, known.embeddings),
        searches=_first(given.searches, known.searches),
    )


def _warnings(spec: PolicySpec, policy: Policy, dropped: DroppedOut, catalogue: Catalogue) -> Iterable[str]:
    """What is allowed and yet may surprise: shown by `bursar policy check` and at start."""
    yield from _off(spec, policy, dropped)
    for name, model in policy.models.items():
        if model.price is None:
            yield f"model {name} has no price: wherever a cap applies it is refused"
        elif rates := _uncharged(model, catalogue):
            yield f"model {name}: pricing has no {' and no '.join(rates)}: what it costs is not counted"
        if model.budget.expected_ttft_s > model.budget.hard_timeout_s:
            yield f"model {name}: expected_ttft_secs is longer than hard_timeout_secs"
    for name, route in policy.routes.items():
        if route.baseline is not None and route.explore is None:
            yield f"route {name}: baseline without explore: the other candidates are hardly ever tried"
        if route.baseline is not None and policy.models[route.baseline.model].price is None:
            adequate = route.objective == "cheapest_adequate"
            comes = "nothing is explored from it" if adequate else f"objective {route.objective} does not keep to it"
            yield f"route {name}: the baseline has no price: {comes}"
    caps = policy.caps
    if caps.request_nano and caps.task_nano and caps.request_nano > caps.task_nano:
        yield "caps.request is above caps.task: it never binds within a task"
    if policy.ledger.on_failure == "open" and not policy.ledger.open_allowance_nano:
        yield "ledger.on_failure is open with an allowance of 0: that is closed"


def _off(spec: PolicySpec, policy: Policy, dropped: DroppedOut) -> Iterable[str]:
    """What is written and not in force, because a variable is not set."""
    for name, variables in dropped.providers.items():
        gone = [model for model, (provider, _) in dropped.models.items() if provider == name]
        yield f"provider {name} is off: {_unset(variables)}" + (f" (models: {', '.join(gone)})" if gone else "")
    for name, (provider, variables) in dropped.models.items():
        if provider not in dropped.providers:
            yield f"model {name} is off: {_unset(variables)}"
    if not policy.providers:
        yield "no provider is on: every call will be refused"
    for name in sorted(spec.routes.keys() - policy.routes.keys()):
        yield f"route {name} is off: all of its candidates are"
    for name in policy.routes:
        for pinned in dict.fromkeys(pins_of(spec.routes[name]).values()):
            if pinned not in policy.models:
                yield f"route {name}: the pin to {pinned} is off, for that model is"
        if spec.routes[name].baseline is not None and policy.routes[name].baseline is None:
            yield f"route {name}: the baseline is off, for that model is"
    for pattern, meant in spec.aliases.items():
        if meant not in policy.routes and meant not in policy.models and not meant.startswith("tier:"):
            yield f"alias {pattern} is off: {meant} is"
    if spec.unknown_model and not policy.unknown_model:
        yield f"unknown_model is off: route {spec.unknown_model} is"


def _uncharged(model: Candidate, catalogue: Catalogue) -> list[str]:
    """Rates of the provider's cache that the catalogue knows for this model and the policy's own price has not."""
    price, entry = model.price, catalogue.find(model.provider, model.upstream_model)
    if price is None or price.free or price.source != "policy" or entry is None or entry.price is None:
        return []
    told, known = price.base, entry.price.base
    rates = (("cache_read", told.cache_read, known.cache_read), ("cache_write", told.cache_write, known.cache_write))
    return [f"{name}_per_1k" for name, said, costs in rates if said is None and costs]


def _writing_tools(given: list[str] | None) -> tuple[str, ...]:
    return WRITING_TOOLS if given is None else tuple(pattern.lower() for pattern in given)


def _unset(variables: tuple[str, ...]) -> str:
    return f"{', '.join(variables)} {'is' if len(variables) == 1 else 'are'} not set"
