"""What `bursar probe` understands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROBE_CODES = (
    "Exit codes: 0 no model has become worse; 1 one has, nothing is known of one, or it could not go on; "
    "2 wrong usage, settings or file, or no gateway."
)


def probe(
    file: Annotated[Path, typer.Argument(help="Fixed requests with a check each: JSON lines, or YAML.")],
    model: Annotated[
        list[str] | None, typer.Option(help="A model; may be repeated. [default: the route's candidates]")
    ] = None,
    route: Annotated[str, typer.Option(help="The route that users' requests take.")] = "auto",
    max_usd: Annotated[str | None, typer.Option(help="Dollars that a run may cost, held by the ledger.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Calls at a time.")] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing; say what a run would cost.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="From now on, compare with this run, however it turns out.")
    ] = False,
    alpha: Annotated[
        float, typer.Option(min=1e-9, max=0.5, help="The chance of a false alarm in a run, all models together.")
    ] = 0.01,
    state: Annotated[
        Path | None, typer.Option(help="What is known of earlier runs. [default: FILE.state, beside it]")
    ] = None,
    gateway: Annotated[str | None, typer.Option(help="URL of the gateway. [default: the one on this machine]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask each model of a route the same requests as the last time, and say whether one has become worse.

    Each line of the file is an id, a prompt (or messages, tools, max_tokens, ...) and a check that a program can do:
    equals, contains, matches, number, json_schema, tool_call. The gateway is told how each answer was, so that it finds
    a fall, too. If the gateway has keys, put one with `probes: true` into BURSAR_API_KEY.

    Examples: bursar probe probes.jsonl --max-usd 0.50 ; bursar probe probes.jsonl --model small --dry-run
    """
    from app.commands.probe import probe as run  # noqa: PLC0415  (each command pays for its own imports)

    raise typer.Exit(
        run(
            file, models=model or [], route=route, max_usd=max_usd, concurrency=concurrency, dry_run=dry_run,
            accept=accept, alpha=alpha, state=state, url=gateway, as_json=as_json,
        )
    )  # fmt: skip
