"""A policy's text for a page: what is secret in it stands behind a placeholder, which an edited text may keep. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import yaml

_SECRET_KEYS = {"api_key", "webhook"}
_SECRET_MAPPINGS = {"headers", "query"}
_VARIABLES = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|Bearer|Basic|\s")
_LOOKS_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|AIza|ghp|hf)[-_][A-Za-z0-9_-]{12,}|\bAIza[A-Za-z0-9_-]{20,}")
_PLACEHOLDER = re.compile(r"\"\(kept secret (\d{1,9})\)\"|'\(kept secret (\d{1,9})\)'|\(kept secret (\d{1,9})\)")


class UnknownSecret(Exception):
    """The text has a placeholder for a secret that the policy does not have; its number is the message."""


def mask(text: str) -> tuple[str, tuple[str, ...]]:
    """The text to show, and what stands behind its placeholders. The text must be YAML; else ValueError."""
    spans = sorted({*_secret_values(text), *_secret_words(text)})
    shown: list[str] = []
    kept: list[str] = []
    at = 0
    for start, end in spans:
        if start < at:  # inside of one that is hidden already
            continue
        kept.append(text[start:end])
        shown += [text[at:start], f'"(kept secret {len(kept)})"']
        at = end
    return "".join((*shown, text[at:])), tuple(kept)


def unmask(text: str, kept: tuple[str, ...]) -> str:
    """The text with its secrets in their places. Raises UnknownSecret."""

    def secret(match: re.Match[str]) -> str:
        number = int(next(group for group in match.groups() if group is not None))
        if not 1 <= number <= len(kept):
            raise UnknownSecret(str(number))
        return kept[number - 1]

    return _PLACEHOLDER.sub(secret, text)


def without_values(told: str, draft: str, env: Mapping[str, str], kept: Iterable[str]) -> str:
    """What is told of a draft, without the values of the variables that it names and without kept secrets: a check
    must not be a way to read them."""
    named = set(re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)", draft))
    values = [(env.get(name, ""), f"${{{name}}}") for name in named] + [
        (one.strip("'\""), "(kept secret)") for one in kept
    ]
    for value, stand_in in values:
        if len(value) > 2:
            told = re.sub(re.escape(value), lambda _, text=stand_in: text, told, flags=re.IGNORECASE)  # type: ignore[misc]
    return told


def _secret_values(text: str) -> Iterator[tuple[int, int]]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError("the text is not YAML") from error
    yield from _inside(root, secret=False, seen=set())


def _inside(node: yaml.Node | None, *, secret: bool, seen: set[tuple[int, bool]]) -> Iterator[tuple[int, int]]:
    """Places of secret scalars; what is only a reference to a variable is none."""
    if node is None or (id(node), secret) in seen:
        return
    seen.add((id(node), secret))
    if isinstance(node, yaml.ScalarNode):
        if secret and _VARIABLES.sub("", node.value):
            yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _inside(item, secret=secret, seen=seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(getattr(key, "value", ""))
            hidden = secret or name in _SECRET_KEYS or name in _SECRET_MAPPINGS or _has_password(name, value)
            yield from _inside(value, secret=hidden, seen=seen)


def _has_password(name: str, value: yaml.Node) -> bool:
    return name == "base_url" and isinstance(value, yaml.ScalarNode) and "@" in value.value


def _secret_words(text: str) -> Iterator[tuple[int, int]]:
    """Keys in comments, or wherever nobody would look for them."""
    return ((found.start(), found.end()) for found in _LOOKS_SECRET.finditer(text))
