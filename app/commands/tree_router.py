"""`bursar learn` and `bursar router`: what they understand; what they do is imported when asked."""

from __future__ import annotations

from typing import Annotated

import typer

router_commands = typer.Typer(
    no_args_is_help=True,
    help="What was learned from live traffic: show snapshots, roll back; in BURSAR_DATA_DIR or BURSAR_REDIS_URL.",
)
EXIT_CODES = "Exit codes: 0 done; 1 no such snapshot, or the store does not answer; 2 wrong settings."
LEARN_CODES = "Exit codes: 0 done; 1 a store does not answer; 2 wrong settings."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def learn(
    once: Annotated[bool, typer.Option("--once", help="Learn what is there, and end.")] = False,
    every: Annotated[
        float | None,
        typer.Option(min=0.05, help="Seconds between two looks. [env: BURSAR_LEARN_EVERY_S] [default: 30]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing; what goes wrong is logged.")] = False,
) -> None:
    """Learn from traces and feedback, and publish snapshots that gateways route by.

    A gateway without Redis does so by itself, unless BURSAR_LEARN is false. With BURSAR_REDIS_URL run one, or more: one
    of them leads, another goes on where it stops. It may be killed at any time: nothing is lost, nothing counted twice.

    BURSAR_SNAPSHOT_LABELS and BURSAR_SNAPSHOT_EVERY_S say when a snapshot is made, BURSAR_SNAPSHOTS_KEEP how many stay.
    """
    from app.commands.learn import learn as run  # noqa: PLC0415  (each command pays for its own imports)

    raise typer.Exit(run(once=once, every_s=every, quiet=quiet))


@router_commands.command("list", short_help="List snapshots.", epilog=EXIT_CODES)
def router_list(
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List snapshots, the latest first: how they did on held-out outcomes, which is in force, which were refused."""
    from app.commands.router import listed  # noqa: PLC0415

    raise typer.Exit(listed(limit, as_json=as_json))


@router_commands.command("show", short_help="Show what a snapshot believes.", epilog=EXIT_CODES)
def router_show(
    snapshot: Annotated[int | None, typer.Argument(help="Its number. [default: the one in force]")] = None,
    adequacy: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Also show how surely each model's P(success) is this or more."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a snapshot believes of each model on each kind of work.

    Examples: bursar router show ; bursar router show --adequacy 0.8
    """
    from app.commands.router import show  # noqa: PLC0415

    raise typer.Exit(show(snapshot, adequacy, as_json=as_json))


@router_commands.command("rollback", short_help="Go back to an earlier snapshot.", epilog=EXIT_CODES)
def router_rollback(
    snapshot: Annotated[
        int | None, typer.Argument(min=0, help="Its number; 0: the weights alone. [default: the one before]")
    ] = None,
) -> None:
    """Bring an earlier snapshot into force. Gateways follow within seconds; what was learned since it is forgotten.

    Examples: bursar router rollback ; bursar router rollback 12
    """
    from app.commands.router import rollback  # noqa: PLC0415

    raise typer.Exit(rollback(snapshot))


@router_commands.command("quarantine", short_help="List models in quarantine.", epilog=EXIT_CODES)
def router_quarantine(as_json: JsonOption = False) -> None:
    """List the models that became worse at a kind of work and are kept from it, and what that is laid to."""
    from app.commands.quarantine import quarantine  # noqa: PLC0415

    raise typer.Exit(quarantine(as_json=as_json))


@router_commands.command("release", short_help="Let a model back from quarantine.", epilog=EXIT_CODES)
def router_release(
    model: Annotated[str, typer.Argument(help="Its name in the policy.")],
    task_type: Annotated[str, typer.Argument(help="The kind of work, such as code.")],
) -> None:
    """Let a model back from quarantine at once: how it does now is then what is normal.

    Example: bursar router release small code
    """
    from app.commands.quarantine import release  # noqa: PLC0415

    raise typer.Exit(release(model, task_type))
