"""Runs with all that the measures need, out of traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import duckdb

from app.core.feedback import Feedback
from app.gateway.choose import COULD_SERVE
from app.learner.measures import Judged, Step
from app.stores.traces_runs import calls_by_run
from app.stores.traces_schema import literal

_COULD_SERVE = ", ".join(literal(verdict) for verdict in sorted(COULD_SERVE))
_MORE = f"""
    route IS NOT NULL,
    [c.tier for c in candidates if c.model = model][1],
    list_max([c.tier for c in candidates if c.verdict IN ({_COULD_SERVE})]),
    coalesce(input_tokens, 0), coalesce(cache_read_tokens, 0),
    coalesce(seen->>'$.began', ''), coalesce(seen->>'$.calls', ''), coalesce(seen->>'$.tool_failed' = 'true', false),
    seen->>'$.arguments_ok' = 'true', coalesce(seen->>'$.finish' = 'length', false),
    coalesce(cached.input_tokens, 0)
"""


def judged_since(
    db: duckdb.DuckDBPyConnection, since_s: float, words: Mapping[str, Sequence[Feedback]], *, key: str | None = None
) -> Iterator[Judged]:
    """The runs of a key (None: of all) since then, over the view `traces`. Raises TracesError."""
    for steps in calls_by_run(db, since_s, Step, more=_MORE, key=key, cached=True):
        yield Judged.of(steps, words)
