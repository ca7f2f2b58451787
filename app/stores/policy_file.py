"""Load the policy: read, expand, validate, check references, compile; or say all that is wrong with it.

Every problem is collected before any is reported, each with its file and line, and none quotes a
value that came from the environment or from a field that may hold a secret.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.core.policy import Policy
from app.stores.policy_compile import DroppedOut, compile_policy
from app.stores.policy_model import PolicySpec
from app.stores.policy_references import also_at, did_you_mean, mapping, reference_problems, section_of
from app.stores.policy_yaml import (
    Document,
    KeyPath,
    PolicyError,
    Problem,
    Source,
    digest,
    read_document,
    read_sources,
)
from app.stores.prices import Catalogue

_NUMBER = "must be a number"
_UNITS = {"_usd": " of dollars (5, not $5)", "_per_1k": " of dollars per 1,000 tokens", "_secs": " of seconds"}
_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "missing": "is required",
    "model_type": "must be a mapping",
    "not_a_number": _NUMBER,
    "string_too_short": "must not be empty",
    "string_type": "must be text; a number or true/false needs quotes",
    "too_short": "must not be empty",
}
MOST_FIELDS_TOLD = 11
_BAD_NAME = "a name starts with a letter or digit and goes on with letters, digits, `.`, `_` or `-`, at most {limit}"


def load_policy(path: Path, *, env: Mapping[str, str], catalogue: Catalogue) -> Policy:
    """The policy in a file, or in a directory's YAML files taken as one; PolicyError with all problems."""
    sources = (Source(str(path), path.read_bytes()),) if path.is_fifo() else read_sources(path)
    return build_policy(sources, source=str(path), env=env, catalogue=catalogue)


def build_policy(sources: Sequence[Source], *, source: str, env: Mapping[str, str], catalogue: Catalogue) -> Policy:
    """The same from files already read, so that what was checked is what is compiled."""
    document = read_document(sources, env)
    dropped = _dropped_out(document)
    problems = [*document.problems, *_unset_problems(document, dropped), *reference_problems(document)]
    problems += _shape_problems(document)
    if problems:
        raise PolicyError(problems)
    spec = PolicySpec.model_validate(_without(document.data, dropped))
    return compile_policy(spec, version=digest(sources), source=source, catalogue=catalogue, dropped=dropped)


# What is not set


def _dropped_out(document: Document) -> DroppedOut:
    """Optional providers and models with unset variables, and the models of those providers."""
    providers, models = _unset_optional(document, "providers"), _unset_optional(document, "models")
    orphans = {
        name: (provider, ())
        for name, model in section_of(document, "models").items()
        if isinstance(provider := mapping(model).get("provider"), str)
        and provider in providers
        and all(other in providers for other in also_at(model))
    }
    own = {name: (str(section_of(document, "models")[name].get("provider")), gone) for name, gone in models.items()}
    return DroppedOut(providers, own | orphans)


def _unset_optional(document: Document, section: str) -> dict[str, tuple[str, ...]]:
    gone: dict[str, tuple[str, ...]] = {}
    for path, variables in document.unset.items():
        if path[0] == section and len(path) > 2:
            name = str(path[1])
            if mapping(section_of(document, section).get(name)).get("optional") in (True, "true"):
                gone[name] = tuple(dict.fromkeys((*gone.get(name, ()), *variables)))
    return gone


def _unset_problems(document: Document, dropped: DroppedOut) -> Iterator[Problem]:
    for path, variables in document.unset.items():
        gone: Collection[str] = getattr(dropped, str(path[0]), ())
        if len(path) > 1 and path[1] in gone:
            continue
        for variable in variables:
            yield document.problem(path, f"the variable {variable} is not set; ${{{variable}:-...}} gives a default")


def _without(data: Mapping[str, Any], dropped: DroppedOut) -> dict[str, Any]:
    """The policy as if what dropped out had never been written; routes still name it."""
    kept = dict(data)
    for section, gone in (("providers", dropped.providers), ("models", dropped.models)):
        if section in kept:
            kept[section] = {name: value for name, value in kept[section].items() if name not in gone}
    return kept


# What has the wrong shape


def _shape_problems(document: Document) -> list[Problem]:
    """Everything that the models refuse, in what has dropped out too: a typo there is one all the same."""
    try:
        PolicySpec.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return [problem for detail in details if (problem := _shape_problem(document, detail))]
    return []


def _shape_problem(document: Document, error: ErrorDetails) -> Problem | None:
    """Pydantic's complaint in our words, at the place in the file; None where an unset variable explains it."""
    path: KeyPath = ()
    rest: list[str | int] = []
    for part in error["loc"]:
        # Parts that stand nowhere in the file are pydantic's own: union tags, "[key]", the missing field.
        if not rest and (*path, part) in document.marks:
            path = (*path, part)
        elif part not in ("rates", "free"):
            rest.append(part)
    kind = error["type"]
    if path in document.unset:
        return None
    if kind == "extra_forbidden":
        return document.problem(path, _unknown_field(str(path[-1]), _fields_at(path[:-1])), at_key=True)
    if kind == "missing":
        return document.problem((*path, *rest), _MESSAGES[kind])
    if kind == "string_pattern_mismatch" and path[-1] == "since":
        return document.problem(path, "must be a span such as 24h or 7d, or all")
    if kind == "string_pattern_mismatch":
        limit = 128 if path[:1] == ("models",) or path[2:3] in (("candidates",), ("fallback",), ("pin",)) else 64
        extra = "; a model's name may also hold `:`, `/`, `@`, `+`" if limit == 128 else ""
        return document.problem(path, _BAD_NAME.format(limit=limit) + extra, at_key="[key]" in rest)
    message = _MESSAGES.get(kind) or error["msg"].replace("Input should be", "must be")
    if message == _NUMBER:
        message += next((told for end, told in _UNITS.items() if str(path[-1]).endswith(end)), "")
    if path[-1:] == ("pricing",) and kind == "literal_error":
        message += " or a mapping of rates"
    if path[-1:] == ("pin",) and kind == "string_type":
        message = "must be a model, or a mapping of task types to models"
    return document.problem(path, message)


def _unknown_field(name: str, known: Collection[str]) -> str:
    """With what may have been meant, or with all there is where that is little."""
    if name == "model_list":
        return "unknown field: this is LiteLLM's; docs/migrate.md says what becomes of it"
    meant = did_you_mean(name, known)
    if not meant and 0 < len(known) <= MOST_FIELDS_TOLD:
        return f"unknown field (only {', '.join(sorted(known))})"
    return "unknown field" + meant.replace("_per_1k'", "_per_1k' (dollars per 1,000 tokens)")


def _fields_at(path: KeyPath) -> set[str]:
    """The names of the fields that the models of `policy_model.py` allow at a path."""
    here: list[Any] = [PolicySpec]
    for part in path:
        here = [inner for kind in here for inner in _inside(kind, part)]
    return {
        info.alias or name
        for kind in here
        for choice in _choices(kind)
        if isinstance(choice, type) and issubclass(choice, BaseModel)
        for name, info in choice.model_fields.items()
    }


def _choices(kind: Any) -> list[Any]:
    """The types that an annotation allows, without Annotated and Union around them."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _choices(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [choice for arg in get_args(kind) for choice in _choices(arg)]
    return [kind]


def _inside(kind: Any, part: str | int) -> Iterable[Any]:
    for choice in _choices(kind):
        if get_origin(choice) in (dict, list):
            yield get_args(choice)[-1]
        elif isinstance(choice, type) and issubclass(choice, BaseModel):
            yield from (info.annotation for name, info in choice.model_fields.items() if (info.alias or name) == part)
