"""What a call may cost beside its tokens: the tools that its provider runs and bills by the piece. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.errors import Unpriced, UnpricedTool
from app.core.money import Price
from app.core.policy import Candidate
from app.core.types import ChatRequest
from app.dialects.gemini.paths import searches_are_billed_once
from app.dialects.server_tools import SHOWN_RUNNING

UNSEEN_USES = 10
"""Searches that one call is taken to make at most where its provider tells of them at the end only, and the policy
(`tool_uses`) does not say better. An assumption: a call that searches more passes its cap by the rest."""
SERVICE_TIER = "service tier "
"""Before the name of a tier of service, among the names of tools."""


def billed_tools(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """The provider's own tools that this call may be billed for: those on offer reach a provider of the same dialect
    only, and some models search whatever they are asked."""
    offered, searches = request.prompt.server_tools, candidate.capabilities.searches
    if not (offered or searches):
        return ()
    tools = offered if _passes(request, candidate) else ()
    return (*tools, "web_search") if searches and "web_search" not in tools else tools


def unpriced_tools(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """Those whose fee nobody has declared, or the tier of service; none where not even tokens have a price, which is
    worse."""
    price = candidate.price
    if price is None:
        return ()
    if service_price(request, candidate) is None:
        return (f"{SERVICE_TIER}{request.prompt.service_tier}",)
    return tuple([tool for tool in billed_tools(request, candidate) if price.fee_nano(tool) is None])


def unpriced_error(tools: Sequence[str]) -> Unpriced:
    """The refusal under a cap, for these tools of the provider's or (none) for the model itself; no client is to send
    the call again. No number and no word that agents retry on (shared WIRE.md)."""
    final = {"x-should-retry": "false"}
    if not tools:
        message = "A cost cap applies and the price of this model is unknown: add its pricing to the policy."
        return Unpriced(message, param="model", headers=final)
    named, keys = " and ".join(tools), " and ".join(map(_key, tools))
    message = f"A cost cap applies and what the provider bills for {named} is unknown: add {keys} to the model in the"
    return UnpricedTool(f"{message} policy, or leave it out.", param="tools", headers=final)


def _key(name: str) -> str:
    """Where a policy would say its price."""
    if name.startswith(SERVICE_TIER):
        return f"pricing.service_tiers.{name.removeprefix(SERVICE_TIER)}"
    return f"pricing.tool_fees.{name}"


def service_price(request: ChatRequest, candidate: Candidate) -> Price | None:
    """The price of this call in the tier of service that it asks for, which reaches a provider of its dialect only."""
    tier, price = request.prompt.service_tier, candidate.price
    if tier is None or price is None or not _passes(request, candidate):
        return price
    return price.served(tier)


def sure_tools(request: ChatRequest, candidate: Candidate) -> tuple[tuple[str, int], ...]:
    """How often which tool is used for certain. Chat's usage says nothing of the search that `web_search_options`, or
    a model made to search, always does once (https://platform.openai.com/docs/guides/tools-web-search)."""
    searches = candidate.capabilities.searches or (request.prompt.searches and _passes(request, candidate))
    return (("web_search", 1),) if searches else ()


def unseen_fee_nano(request: ChatRequest, candidate: Candidate, told: tuple[tuple[str, int], ...] = ()) -> int:
    """The most uses that are taken to come of each tool on offer of which the provider tells at the end only, those
    that are sure left out: what has to be there before the call, for nothing can be cut when it is known. `told`: the
    uses that it has told of so far; of such a tool it is taken to use one more."""
    price = candidate.price
    if not request.prompt.server_tools or price is None:
        return 0
    if candidate.provider.speaking_with(request.dialect) in SHOWN_RUNNING:
        return 0
    sure, most = {tool for tool, _ in sure_tools(request, candidate)}, dict(price.tool_uses)
    used = dict(told)

    def uses(tool: str) -> int:
        open_ = _is_open(tool, candidate)
        if used.get(tool):
            return int(open_)
        return most.get(tool, UNSEEN_USES if open_ else 1)

    return sum(
        (price.fee_nano(tool) or 0) * uses(tool) for tool in billed_tools(request, candidate) if tool not in sure
    )


def _is_open(tool: str, candidate: Candidate) -> bool:
    """Whether nothing bounds the uses of such a tool that are billed. Nothing that a request can say bounds the
    searches that Gemini makes from 3 on (https://ai.google.dev/api/caching#GoogleSearch has no such member), nor those
    of Chat's hosts; an answer from maps, or a container, is billed once, as one from a search before Gemini 3."""
    return tool in ("web_search", "file_search") and not searches_are_billed_once(candidate.upstream_model)


def _passes(request: ChatRequest, candidate: Candidate) -> bool:
    provider = candidate.provider
    return provider.bridge is None and provider.speaking_with(request.dialect) == request.dialect
