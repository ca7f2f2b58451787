"""`python -m tests.doc_tables`: write the tables of docs/ that say what the code says, between their marks.

A mark is `<!-- table: NAME -->`, and the table ends at the next `<!-- end -->`. `tests/test_docs.py` fails where one is
not what this would write.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from app.core import errors
from app.core.errors import BursarError
from app.gateway.metrics import Metrics
from app.settings import Settings
from app.stores.policy_model import json_schema
from tests.conftest import ROOT

DOCS = ROOT / "docs"
MARKED = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SHOWN_ELSEWISE = {"policy": "`policies/default.yaml`", "router_weights": "the shipped ones", "data_dir": "`.bursar`"}
"""Settings whose default is a path of this machine, or reads better otherwise."""


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table of these rows, the first its head."""
    head, *body = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return "\n".join([f"| {head} |", "|---" * len(rows[0]) + "|", *(f"| {row} |" for row in body)]) + "\n"


def settings() -> str:
    """The environment: every BURSAR_* variable."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = shown(field.default)
        rows.append((f"`BURSAR_{name.upper()}`", SHOWN_ELSEWISE.get(name, default), field.description or ""))
    return table(("variable", "default", ""), *rows)


def metrics() -> str:
    """Every metric of a gateway, with its labels."""
    found = {}
    for collector in Metrics().registry._collector_to_names:
        assert isinstance(collector, MetricWrapperBase)
        (family,) = collector.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in collector._labelnames)
        found[name] = (f"`{name}`", family.type, labels, family.documentation)
    return table(("metric", "kind", "labels", ""), *(found[name] for name in sorted(found)))


def error_codes() -> str:
    """Every error that a client may get, the plainest first."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BursarError)]
    rows = []
    for kind in sorted(kinds, key=lambda kind: (kind.status, str(kind.code), kind.__name__)):
        code = f"`{kind.code}`" if kind.code else "the provider's"
        said = "A defect." if kind is BursarError else first_sentence(kind.__doc__ or "")
        rows.append((str(kind.status), code, f"`{kind.type}`", kind.blame, said))
    return table(("status", "`code`", "`type`", "whose fault", ""), *rows)


def first_sentence(text: str) -> str:
    """The first of a docstring."""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".") + "."


def policy_fields() -> str:
    """Every object that a policy may hold, field by field."""
    schema = json_schema()
    parts = [f"## The file\n\n{schema['description']}\n\n{fields_of(schema)}"]
    for name, spec in sorted(schema["$defs"].items()):
        if "properties" in spec:
            parts.append(f"## {section(name)}\n\n{' '.join(spec.get('description', '').split())}\n\n{fields_of(spec)}")
    return "\n".join(parts)


def fields_of(spec: dict[str, Any]) -> str:
    """The fields of one object."""
    rows = []
    for name, field in spec["properties"].items():
        default = "required" if name in spec.get("required", []) else shown(field.get("default"))
        kinds = " ".join(f"[{section(of).lower()}](#{section(of).lower()})" for of in dict.fromkeys(referred(field)))
        rows.append((f"`{name}`", default, " ".join([field.get("description", ""), kinds]).strip()))
    return table(("field", "default", ""), *rows)


def section(name: str) -> str:
    """A specification's name as a heading: ModelSpec is Model."""
    return name.removesuffix("Spec")


def shown(default: object) -> str:
    """A default as YAML would say it; nothing for none, and for objects, whose own fields have theirs."""
    if default is None or isinstance(default, dict | list):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def referred(field: object) -> Iterator[str]:
    """The objects that a field may hold."""
    if isinstance(field, dict):
        if isinstance(reference := field.get("$ref"), str):
            yield reference.rpartition("/")[2]
        field = list(field.values())
    if isinstance(field, list):
        for part in field:
            yield from referred(part)


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings,
    "metrics": metrics,
    "errors": error_codes,
    "policy-fields": policy_fields,
}


def written(text: str) -> str:
    """The page with its tables as they should be."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    """Write all of them."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        if (new := written(text)) != text:
            page.write_text(new)
            print(f"{page.relative_to(Path.cwd())}: written")


if __name__ == "__main__":
    main()
