"""What a call may cost beside its tokens: the tools that its provider runs and bills by the piece. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.errors import Unpriced, UnpricedTool
from app.core.policy import Candidate
from app.core.types import ChatRequest


def billed_tools(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """The provider's own tools that this call may be billed for: those on offer reach a provider of the same dialect
    only, and some models search whatever they are asked."""
    offered, searches = request.prompt.server_tools, candidate.capabilities.searches
    if not (offered or searches):
        return ()
    tools = offered if _passes(request, candidate) else ()
    return (*tools, "web_search") if searches and "web_search" not in tools else tools


def unpriced_tools(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """Those whose fee nobody has declared; none where not even tokens have a price, which is worse."""
    price = candidate.price
    if price is None:
        return ()
    return tuple([tool for tool in billed_tools(request, candidate) if price.fee_nano(tool) is None])


def unpriced_error(tools: Sequence[str]) -> Unpriced:
    """The refusal under a cap, for these tools of the provider's or (none) for the model itself; no client is to send
    the call again. No number and no word that agents retry on (shared WIRE.md)."""
    final = {"x-should-retry": "false"}
    if not tools:
        message = "A cost cap applies and the price of this model is unknown: add its pricing to the policy."
        return Unpriced(message, param="model", headers=final)
    named, keys = " and ".join(tools), " and ".join(f"pricing.tool_fees.{tool}" for tool in tools)
    message = f"A cost cap applies and what the provider bills for {named} is unknown: add {keys} to the model in the"
    return UnpricedTool(f"{message} policy, or leave the tool out.", param="tools", headers=final)


def sure_tools(request: ChatRequest, candidate: Candidate) -> tuple[tuple[str, int], ...]:
    """How often which tool is used for certain. Chat's usage says nothing of the search that `web_search_options`, or
    a model made to search, always does once (https://platform.openai.com/docs/guides/tools-web-search)."""
    searches = candidate.capabilities.searches or (request.prompt.searches and _passes(request, candidate))
    return (("web_search", 1),) if searches else ()


def _passes(request: ChatRequest, candidate: Candidate) -> bool:
    provider = candidate.provider
    return provider.bridge is None and provider.speaking_with(request.dialect) == request.dialect
