"""`bursar traces`: what it understands; what it does is in `app/commands/traces.py`, imported when asked."""

from __future__ import annotations

from typing import Annotated

import typer

traces_commands = typer.Typer(no_args_is_help=True, help="Finished calls: query them in SQL, watch them, compact them.")


@traces_commands.command(
    "query",
    short_help="Ask about finished calls in SQL.",
    epilog="Exit codes: 0 answered; 1 traces cannot be read; 2 the SQL is wrong.",
)
def traces_query(
    sql: Annotated[str, typer.Argument(help="One SELECT from `traces` or `runs`, in DuckDB's SQL.")],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all rows.")] = False,
) -> None:
    """Ask about finished calls in SQL, the last ones included: one row a call in `traces`, one a run (a task, or a call
    of none, with what feedback says of it) in `runs`.

    Columns: bursar traces query "DESCRIBE traces". Days are partitions: `WHERE day >= current_date - 7` reads less.

    Examples: bursar traces query "SELECT model, count(*), sum(cost_usd) FROM traces GROUP BY model" ;
    bursar traces query "SELECT * FROM traces WHERE outcome = 'cost_killed'" --json
    """
    from app.commands.traces import Form, query  # noqa: PLC0415  (each command pays for its own imports)

    if as_csv and as_json:
        raise typer.BadParameter("--csv or --json, not both")
    raise typer.Exit(query(sql, Form.CSV if as_csv else Form.JSON if as_json else Form.TABLE))


@traces_commands.command(
    "compact",
    short_help="Bring finished calls into Parquet files.",
    epilog="Exit codes: 0 done; 1 it could not go on; 2 wrong settings.",
)
def traces_compact(
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing; what goes wrong is logged.")] = False,
) -> None:
    """Bring finished calls into Parquet files by day, once, and remove files that are too old.

    A gateway does so by itself every two minutes, unless BURSAR_TRACES_COMPACT is false. It may be repeated, killed
    and run twice at once: each record ends in one file.

    BURSAR_TRACES_URL says where to (any URL that fsspec knows), BURSAR_TRACES_KEEP_DAYS for how long.
    """
    from app.commands.traces import compact  # noqa: PLC0415

    raise typer.Exit(compact(quiet=quiet))


@traces_commands.command(
    "tail",
    short_help="Show the last calls, a line each.",
    epilog="Exit codes: 0 done; 1 traces cannot be read; 2 wrong settings.",
)
def traces_tail(
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last calls.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole records, one a line.")] = False,
) -> None:
    """Show the last calls, a line each: time (UTC), outcome, cost, duration, key, model, request id.

    Examples: bursar traces tail -f ; bursar traces tail -n 1000 --json
    """
    from app.commands.traces import tail  # noqa: PLC0415

    raise typer.Exit(tail(count=count, follow=follow, as_json=as_json))
