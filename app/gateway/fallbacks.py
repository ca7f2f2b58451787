"""What a call may cost whose client names other models of the provider, to answer where the asked one declines
(Messages' `fallbacks`): each that answers is billed at its own price. Pure."""

from __future__ import annotations

import dataclasses

from app.core.errors import Forbidden, Unpriced
from app.core.money import ChainRates, Price, Rates
from app.core.policy import Candidate, Key
from app.core.types import DEFAULT_FALLBACKS, ChatRequest
from app.gateway.view import View


def with_fallbacks(
    request: ChatRequest, candidate: Candidate, view: View, key: Key | None, input_tokens: int
) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate at a price that holds what the dearest of them costs and knows each by its name; and the models
    whose price nobody has declared. Raises Forbidden where the key may not use one of them; a provider's own choice may
    be any of its models in the policy."""
    provider, price = candidate.provider, candidate.price
    named = request.prompt.fallbacks
    if provider.bridge is not None or provider.speaking_with(request.dialect) != request.dialect:
        return candidate, ()  # none reaches a provider of another dialect
    listed = {m.upstream_model: m for m in view.policy.models.values() if m.provider.name == provider.name}
    by_default = named == (DEFAULT_FALLBACKS,)  # the provider chooses: any that is known here
    if key is not None and key.routes is not None:
        _check_allowed(tuple(listed) if by_default else named, listed, key.routes)
    if price is None:
        return candidate, ()
    if by_default:
        found = {name: model.price for name, model in listed.items()}
        unpriced: tuple[str, ...] = ()
    else:
        found = {name: listed[name].price if name in listed else _catalogued(view, candidate, name) for name in named}
        unpriced = tuple([name for name, known in found.items() if _served(known, request) is None])
    others = {name: served for name, known in found.items() if (served := _served(known, request)) is not None}
    others[candidate.upstream_model] = price
    return dataclasses.replace(candidate, price=_chained(price, others, input_tokens)), unpriced


def unpriced_fallbacks_error(models: tuple[str, ...]) -> Unpriced:
    """The refusal under a cap; no client is to send the call again (shared WIRE.md)."""
    named = " and ".join(models)
    message = (
        f"A cost cap applies and the price of {named} among the fallbacks is unknown: add it to the policy's models,"
    )
    return Unpriced(
        f"{message} with its pricing, or leave it out.", param="fallbacks", headers={"x-should-retry": "false"}
    )


def _check_allowed(named: tuple[str, ...], listed: dict[str, Candidate], allowed: tuple[str, ...]) -> None:
    for name in named:
        if name not in allowed and (name not in listed or listed[name].name not in allowed):
            raise Forbidden("This key may not use a model of the fallbacks.", param="fallbacks")


def _catalogued(view: View, candidate: Candidate, name: str) -> Price | None:
    if candidate.provider.free:
        return candidate.price
    entry = view.catalogue.find(candidate.provider, name)
    return entry.price if entry is not None else None


def _served(price: Price | None, request: ChatRequest) -> Price | None:
    """In the tier of service that is asked for, which each attempt takes over."""
    tier = request.prompt.service_tier
    return price if price is None or tier is None else price.served(tier)


def _chained(price: Price, others: dict[str, Price], input_tokens: int) -> Price:
    def chain(rates: Rates, tokens: int) -> Rates:
        every = (rates, *(other.rates(tokens) for other in others.values()))
        plain = {member.name: getattr(rates, member.name) for member in dataclasses.fields(Rates)}
        most_input, most_output = max(r.dearest_input for r in every), max(r.dearest_output for r in every)
        return ChainRates(**plain, most_input=most_input, most_output=most_output)

    tiers = tuple((above, chain(rates, max(input_tokens, above + 1))) for above, rates in price.tiers)
    return dataclasses.replace(price, base=chain(price.base, input_tokens), tiers=tiers, others=tuple(others.items()))
