"""What in a policy refers to nothing, or contradicts itself.

This looks at the raw values and not at the checked ones, so that it speaks even where the shape is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from app.core.policy import MEASURES, ROUTERS
from app.stores.policy_yaml import Document, KeyPath, Problem
from routers.tasks import TaskType

SHARES_TOLERANCE = 1e-6
RESERVED_OPTIONS = frozenset(
    ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "input", "api_key",
     "api_base", "base_url", "custom_llm_provider", "fallbacks", "num_retries", "max_retries", "timeout",
     "mock_response")
)  # fmt: skip
"""Arguments of litellm's that are said elsewhere, or that would undo what the gateway promises."""
OBJECTIVE_FIELDS = {"quality": "max_expected_cost_usd", "utility": "success_value_usd"}
"""What an objective cannot do without, and no other objective uses."""


def reference_problems(document: Document) -> Iterator[Problem]:
    """Names of nothing, names used twice, and settings that exclude each other."""
    providers, models, routes = (section_of(document, name) for name in ("providers", "models", "routes"))
    if document.data.get("providers") == {}:
        yield document.problem(("providers",), "must not be empty")
    for name, provider in providers.items():
        yield from _bridge_problems(document, ("providers", name), mapping(provider))
    for name, model in models.items():
        yield from _unknown(
            document, ("models", name, "provider"), mapping(model).get("provider"), "provider", providers
        )
        yield from _name_list(document, ("models", name, "also_at"), also_at(model), "provider", providers)
        yield from _tier_problems(document, ("models", name, "pricing", "tiers"), mapping(model).get("pricing"))
        if name.startswith("tier:"):
            yield document.problem(("models", name), "`tier:` is how clients ask for a tier", at_key=True)
        if name in routes:
            yield document.problem(("routes", name), "is also the name of a model", at_key=True)
    for name, route in routes.items():
        for part in ("candidates", "fallback"):
            yield from _name_list(document, ("routes", name, part), mapping(route).get(part), "model", models)
        yield from _pin_problems(document, ("routes", name, "pin"), mapping(route).get("pin"), models)
        yield from _objective_problems(document, ("routes", name), mapping(route))
        yield from _split_problems(document, ("routes", name), mapping(route))
        yield from _explore_problems(document, ("routes", name), mapping(route))
        yield from _baseline_problems(document, ("routes", name), mapping(route), models)
    for pattern, meant in section_of(document, "aliases").items():
        if not (isinstance(meant, str) and meant.startswith("tier:")):
            yield from _unknown(document, ("aliases", pattern), meant, "route or model", [*routes, *models])
    yield from _unknown(document, ("unknown_model",), document.data.get("unknown_model"), "route", routes)
    yield from _unknown_keys(document, ("targets",), document.data.get("targets"), "measure", MEASURES)
    yield from _key_problems(document, routes, models)


def also_at(model: Any) -> list[Any]:
    """The further providers of a model as it stands in the file."""
    return _list(mapping(model).get("also_at"))


def _unknown(document: Document, path: KeyPath, name: Any, what: str, known: Collection[str]) -> Iterator[Problem]:
    if not isinstance(name, str) or name in known or path in document.unset:
        return
    if path in document.expanded:
        yield document.problem(path, f"what the variable holds is not the name of a {what}")
    else:
        yield document.problem(path, f"there is no {what} '{name}'{did_you_mean(name, known)}")


def _name_list(
    document: Document, path: KeyPath, names: Any, what: str, known: Collection[str], models: Collection[str] = ()
) -> Iterator[Problem]:
    """`models`: names that are known, and of another kind; who comes from another gateway lists them for keys."""
    seen: set[str] = set()
    for index, name in enumerate(_list(names)):
        if isinstance(name, str) and name in models and (*path, index) not in document.expanded:
            said = f"'{name}' is a model, and this names {what}s: one with that one candidate allows it"
            yield document.problem((*path, index), said)
        else:
            yield from _unknown(document, (*path, index), name, what, known)
        if isinstance(name, str):
            if name in seen:
                why = ": the models are asked in this order, once each" if what == "model" else ""
                yield document.problem((*path, index), f"is listed twice{why}")
            seen.add(name)


def _unknown_keys(
    document: Document, path: KeyPath, names: Any, what: str, known: Collection[str]
) -> Iterator[Problem]:
    for name in mapping(names):
        if name not in known:
            message = f"there is no {what} '{name}' (only {', '.join(known)}){did_you_mean(str(name), known)}"
            yield document.problem((*path, name), message, at_key=True)


def _pin_problems(document: Document, path: KeyPath, pin: Any, models: Collection[str]) -> Iterator[Problem]:
    yield from _unknown(document, path, pin, "model", models)
    yield from _unknown_keys(document, path, pin, "task type", [task.value for task in TaskType])
    for task, model in mapping(pin).items():
        yield from _unknown(document, (*path, task), model, "model", models)


def _objective_problems(document: Document, path: KeyPath, route: Mapping[str, Any]) -> Iterator[Problem]:
    objective = route.get("objective")
    for wanted, field in OBJECTIVE_FIELDS.items():
        if objective == wanted and route.get(field) is None and (*path, field) not in document.unset:
            yield document.problem((*path, "objective"), f"{wanted} needs {field} beside it")
        elif objective != wanted and field in route:
            yield document.problem((*path, field), f"only `objective: {wanted}` uses this", at_key=True)


def _explore_problems(document: Document, path: KeyPath, route: Mapping[str, Any]) -> Iterator[Problem]:
    left_out = mapping(route.get("explore")).get("never_for")
    types = [task.value for task in TaskType]
    yield from _name_list(document, (*path, "explore", "never_for"), left_out, "task type", types)


def _baseline_problems(
    document: Document, path: KeyPath, route: Mapping[str, Any], models: Collection[str]
) -> Iterator[Problem]:
    given, path = route.get("baseline"), (*path, "baseline")
    model = mapping(given).get("model") if isinstance(given, dict) else given
    at = (*path, "model") if isinstance(given, dict) else path
    yield from _unknown(document, at, model, "model", models)
    if isinstance(model, str) and model in models and model not in _list(route.get("candidates")):
        yield document.problem(at, f"'{model}' is none of this route's candidates")
    split = mapping(route.get("split"))
    if given is not None and (route.get("router") == "heuristic" or (split and not split.get("learned"))):
        yield document.problem(path, "is left only by what the learned router knows: leave one out", at_key=True)


def _split_problems(document: Document, path: KeyPath, route: Mapping[str, Any]) -> Iterator[Problem]:
    split = mapping(route.get("split"))
    yield from _unknown_keys(document, (*path, "split"), split, "router", ROUTERS)
    if split and "explore" in route:
        yield document.problem((*path, "explore"), "a `split` compares routers: leave one out", at_key=True)
    if split and "router" in route:
        yield document.problem((*path, "router"), "`split` says whose scores decide: leave one out", at_key=True)
    shares = [share for share in split.values() if isinstance(share, int | float) and not isinstance(share, bool)]
    if split and len(shares) == len(split) and abs(sum(shares) - 1) > SHARES_TOLERANCE:
        yield document.problem((*path, "split"), f"the shares must add up to 1, not to {sum(shares):g}")


def _bridge_problems(document: Document, path: KeyPath, provider: Mapping[str, Any]) -> Iterator[Problem]:
    bridged, given = provider.get("dialect") == "litellm", "litellm" in provider
    if bridged and not given:
        yield document.problem((*path, "dialect"), "needs a mapping `litellm`, with litellm's name for the provider")
    elif given and not bridged:
        yield document.problem((*path, "litellm"), "belongs to `dialect: litellm` only", at_key=True)
    if not bridged and "base_url" not in provider:
        yield document.problem((*path, "base_url"), "is required")
    if bridged and provider.get("also"):
        yield document.problem((*path, "also"), "what litellm translates for has one dialect")
    if bridged and provider.get("query"):
        yield document.problem((*path, "query"), "litellm takes an `api_version` in its `options`", at_key=True)
    for name in mapping(mapping(provider.get("litellm")).get("options")):
        if name in RESERVED_OPTIONS:
            yield document.problem((*path, "litellm", "options", name), "is the gateway's to say", at_key=True)


def _tier_problems(document: Document, path: KeyPath, pricing: Any) -> Iterator[Problem]:
    seen: set[Any] = set()
    for index, tier in enumerate(_list(mapping(pricing).get("tiers"))):
        above = mapping(tier).get("above_tokens")
        if isinstance(above, int) and above in seen:
            yield document.problem((*path, index, "above_tokens"), "another tier starts at the same number of tokens")
        seen.add(above if isinstance(above, int) else None)


def _key_problems(document: Document, routes: Collection[str], models: Collection[str]) -> Iterator[Problem]:
    teams = section_of(document, "teams")
    for parts, what in ((("name",), "name"), (("sha256", "former_sha256"), "hash")):
        seen: set[str] = set()
        for index, key in enumerate(_list(document.data.get("keys"))):
            for part in parts:
                value = mapping(key).get(part)
                if isinstance(value, str):
                    if value.lower() in seen and ("keys", index, part) not in document.unset:
                        yield document.problem(("keys", index, part), f"another key has this {what}")
                    seen.add(value.lower())
    for index, key in enumerate(_list(document.data.get("keys"))):
        yield from _name_list(document, ("keys", index, "routes"), mapping(key).get("routes"), "route", routes, models)
        if "team" in mapping(key):
            yield from _unknown(document, ("keys", index, "team"), mapping(key)["team"], "team", teams)
    for name, team in teams.items():
        yield from _name_list(document, ("teams", name, "routes"), mapping(team).get("routes"), "route", routes, models)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a sentence that names the closest known name, or nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.55)
    return f"; did you mean '{close[0]}'?" if close else ""


def mapping(value: Any) -> dict[str, Any]:
    """The value, or an empty mapping where it is none."""
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def section_of(document: Document, name: str) -> dict[str, Any]:
    """A section of the policy at the top level."""
    return mapping(document.data.get(name))
