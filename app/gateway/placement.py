"""Whether a model may serve a request whose client restricts that (OpenRouter's `provider`). Pure.

What OpenRouter itself serves goes there with the client's own words, and is its affair. Of every other provider this
gateway knows the name and the price, and nothing else: what it cannot see to is never taken as given.
"""

from __future__ import annotations

import dataclasses

from app.core.policy import Candidate
from app.core.types import ChatRequest, Placement
from app.gateway.fees import service_price


def misplaced(request: ChatRequest, candidate: Candidate, input_tokens: int) -> str | None:
    """Why this candidate may not serve it, at none of its providers; None where it may."""
    if (placement := request.prompt.placement) is None:
        return None
    found = [_misplaced(placement, request, copy, input_tokens) for copy in candidate.copies or (candidate,)]
    return None if None in found else found[0]


def placed(request: ChatRequest, candidate: Candidate, input_tokens: int) -> Candidate:
    """The candidate with those of its copies alone that may serve it."""
    if (placement := request.prompt.placement) is None:
        return candidate
    kept = [copy for copy in candidate.copies if _misplaced(placement, request, copy, input_tokens) is None]
    return dataclasses.replace(candidate, copies=tuple(kept))


def _misplaced(placement: Placement, request: ChatRequest, candidate: Candidate, input_tokens: int) -> str | None:
    provider, price = candidate.provider, service_price(request, candidate)
    if provider.openrouter and provider.speaking_with(request.dialect) == request.dialect:
        return None
    if placement.promises:
        return f"cannot promise what provider.{placement.promises[0]} asks for"
    name = provider.name.lower()
    if placement.only is not None and name not in placement.only:
        return "not one of the providers that the client allows"
    if name in placement.ignore:
        return "a provider that the client rules out"
    if placement.max_input_rate is None and placement.max_output_rate is None:
        return None
    if price is None:
        return "unpriced, so not known to be below provider.max_price"
    rates = price.rates(input_tokens)
    pairs = ((rates.input, placement.max_input_rate), (rates.output, placement.max_output_rate))
    return "above provider.max_price" if any(most is not None and rate > most for rate, most in pairs) else None
