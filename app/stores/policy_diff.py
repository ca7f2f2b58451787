"""What changed between two policies, one readable line a change, without secrets. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard

from app.core.money import Rates, usd_text
from app.core.policy import ANY_TASK, Candidate, Policy, Provider
from app.core.secret import Secret

_SECTIONS = {"providers": "provider", "models": "model", "routes": "route", "teams": "team"}
_SETTINGS = (
    "caps",
    "ledger",
    "landing",
    "writing_tools",
    "aliases",
    "unknown_model",
    "on_cut",
    "cache_s",
    "stored_responses",
    "notices",
    "targets",
    "require_replay",
)
_SHOWN_MAPPINGS = ("pin", "split", "aliases", "targets")
"""Every other mapping holds headers, which may be secret."""


def diff_policies(old: Policy, new: Policy) -> list[str]:
    """The changes from `old` to `new`, section by section; empty where only comments or spelling changed."""
    lines: list[str] = []
    for section, what in _SECTIONS.items():
        lines += _named(what, getattr(old, section), getattr(new, section))
    lines += _named("key", old.named_keys(), new.named_keys())
    lines += _changed("", _facts(_settings(old)), _facts(_settings(new)))
    if old.prices_version != new.prices_version:
        lines.append(f"price catalogue: {old.prices_version} -> {new.prices_version}")
    return lines


def _settings(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in _SETTINGS}


def _named(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{what} {name}: removed"
        elif name not in old:
            yield f"{what} {name}: added"
        elif old[name] != new[name]:
            yield from _changed(f"{what} {name}: ", _facts(_members(old[name])), _facts(_members(new[name])))


def _members(value: Any) -> dict[str, Any]:
    members = {member.name: getattr(value, member.name) for member in fields(value)}
    if isinstance(value, Candidate):
        members |= _places(value, members.pop("copies"))
    return members


def _places(model: Candidate, copies: tuple[Candidate, ...]) -> dict[str, Any]:
    """Where else a model is, and its price there if that is another one: all else is the model's own."""
    others = [copy for copy in copies if copy.provider.name != model.provider.name]
    priced = {
        f"price at {copy.provider.name}": copy.price and copy.price.base for copy in others if copy.price != model.price
    }
    return {"also_at": tuple(copy.provider.name for copy in others), **priced}


def _facts(members: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as dotted names; a provider inside a model is its name, for its own changes are told once."""
    facts: dict[str, Any] = {}
    for name, value in members.items():
        key = prefix + name
        if isinstance(value, Provider):
            facts[key] = value.name
        elif name in _SHOWN_MAPPINGS:
            shown = ", ".join(f"{at}: {what}" for at, what in value.items())
            facts[key] = shown.removeprefix(f"{ANY_TASK}: ") or None
        elif isinstance(value, Mapping):
            facts[key] = Secret(repr(sorted(value.items())))
        elif name in ("sha256", "former_sha256"):
            facts[key] = None if value is None else Secret(str(value))
        elif is_dataclass(value) and not isinstance(value, Rates | Secret):
            facts |= _facts(_members(value), f"{key}.")
        else:
            facts[key] = value
    return facts


def _changed(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Secret) or isinstance(after, Secret):
            how = "set" if before is None else "removed" if after is None else "changed"
            yield f"{prefix}{key} {how}"
        elif _is_names(before) and _is_names(after):
            yield f"{prefix}{key} {_names_changed(before, after)}"
        else:
            label = key.removesuffix("_nano")
            yield f"{prefix}{label} {_text(key, before)} -> {_text(key, after)}"


def _is_names(value: Any) -> TypeGuard[tuple[str, ...]]:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _names_changed(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    moves = [f"+{name}" for name in after if name not in before] + [f"-{name}" for name in before if name not in after]
    return " ".join(moves) or "reordered: " + ", ".join(after)


def _text(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Rates):
        return _rates_text(value)
    if key.endswith("_nano"):
        return f"${usd_text(value)}"
    if value and isinstance(value, tuple) and all(isinstance(item, float) for item in value):
        return ", ".join(f"{item:g}" for item in value)
    if isinstance(value, tuple):
        return "; ".join(f"above {item[0]} tokens {_rates_text(item[1])}" for item in value) or "none"
    return str(value)


def _rates_text(rates: Rates) -> str:
    parts = (f"{name} ${usd_text(rate)}" for name, rate in _members(rates).items() if rate is not None)
    return f"{', '.join(parts)} per million"
