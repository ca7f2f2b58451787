"""`bursar task`: what it understands; what it does is in `app/commands/task.py`, imported when asked."""

from __future__ import annotations

from typing import Annotated

import typer

task_commands = typer.Typer(
    no_args_is_help=True,
    help="Show tasks; raise, freeze, thaw or close them, in the ledger of BURSAR_DATA_DIR or BURSAR_REDIS_URL.",
)
EXIT_CODES = "Exit codes: 0 done; 1 no such task, or the ledger does not answer; 2 wrong usage."

TaskArgument = Annotated[str, typer.Argument(help="The task's id.")]
KeyOption = Annotated[
    str | None,
    typer.Option(help="Whose task; '-' where the policy sets no keys. [default: whoever has one of that name]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@task_commands.command("show", short_help="Show a task.", epilog=EXIT_CODES)
def task_show(task: TaskArgument, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Show a task: money, calls, tokens, limits and who set them, state, family. Example: bursar task show run-17"""
    from app.commands.task import show  # noqa: PLC0415  (each command pays for its own imports)

    raise typer.Exit(show(task, key, as_json=as_json))


@task_commands.command("list", short_help="List the latest used tasks.", epilog=EXIT_CODES)
def task_list(
    state: Annotated[str | None, typer.Option(help="Only open, frozen or closed ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the latest used tasks. Example: bursar task list --state frozen"""
    from app.commands.task import listed  # noqa: PLC0415

    if state not in (None, "open", "frozen", "closed"):
        raise typer.BadParameter("open, frozen or closed", param_hint="--state")
    raise typer.Exit(listed(state, limit, as_json=as_json))


@task_commands.command("raise", short_help="Set limits of a task.", epilog=EXIT_CODES)
def task_raise(
    task: TaskArgument,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Dollars in all.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Calls in all.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Input and output tokens in all.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Seconds since the first call.")] = None,
    max_parallel: Annotated[
        int | None, typer.Option("--max-parallel-requests", min=1, max=10**6, help="Requests at a time.")
    ] = None,
    key: KeyOption = None,
) -> None:
    """Set limits of a task in place of the policy's: a task that was cut goes on once its limit is higher.

    Works for a task that has not begun, if --key says whose it will be. Limits can be lowered, too.

    Examples: bursar task raise run-17 --max-cost 5 ; bursar task raise run-18 --max-calls 50 --key ci
    """
    from app.commands.task import Raise, amend  # noqa: PLC0415

    limits = Raise(max_cost, max_calls, max_tokens, max_seconds, max_parallel)
    if limits == Raise():
        raise typer.BadParameter(
            "name a limit: --max-cost, --max-calls, --max-tokens, --max-seconds or --max-parallel-requests"
        )
    raise typer.Exit(amend(task, key, limits=limits))


@task_commands.command("freeze", short_help="Refuse further calls of a task.", epilog=EXIT_CODES)
def task_freeze(task: TaskArgument, key: KeyOption = None) -> None:
    """Refuse further calls of a task until it is thawed; calls under way end by themselves."""
    from app.commands.task import amend  # noqa: PLC0415

    raise typer.Exit(amend(task, key, state="frozen"))


@task_commands.command("thaw", short_help="Open a frozen or closed task again.", epilog=EXIT_CODES)
def task_thaw(task: TaskArgument, key: KeyOption = None) -> None:
    """Open a frozen or closed task again."""
    from app.commands.task import amend  # noqa: PLC0415

    raise typer.Exit(amend(task, key, state="open"))


@task_commands.command("close", short_help="End a task: no further calls.", epilog=EXIT_CODES)
def task_close(task: TaskArgument, key: KeyOption = None) -> None:
    """End a task: no further calls. Its own key cannot open it again."""
    from app.commands.task import amend  # noqa: PLC0415

    raise typer.Exit(amend(task, key, state="closed"))
