"""The `bursar` command: what it understands. What it does is in the modules beside this one, imported when asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.commands.kernels import pin_kernels
from app.commands.tree_eval import eval_commands
from app.commands.tree_probe import PROBE_CODES, probe
from app.commands.tree_router import LEARN_CODES, learn, router_commands
from app.commands.tree_task import task_commands
from app.commands.tree_traces import traces_commands

EXIT_CODES = "Exit codes: 0 done; 1 the answer is no, or it could not go on; 2 wrong usage, settings or policy."

cli = typer.Typer(
    name="bursar",
    help="An OpenAI-compatible gateway that holds the purse: cheapest adequate model, hard dollar caps.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy_commands = typer.Typer(no_args_is_help=True, help="Check policy files, print their schema.")
keys_commands = typer.Typer(no_args_is_help=True, help="Make keys for clients.")
cli.add_typer(policy_commands, name="policy")
cli.add_typer(keys_commands, name="keys")
cli.add_typer(eval_commands, name="eval")
cli.add_typer(router_commands, name="router", short_help="Show what was learned, or roll it back.")
cli.add_typer(task_commands, name="task", short_help="Show, raise, freeze, thaw or close tasks.")
cli.add_typer(traces_commands, name="traces", short_help="Query, watch or compact finished calls.")


def _say_version(asked: bool) -> None:
    if asked:
        from app.settings import installed_version  # noqa: PLC0415  (each command pays for its own imports)

        typer.echo(f"bursar {installed_version()}")
        raise typer.Exit


@cli.callback()
def _bursar(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version.")
    ] = False,
) -> None:
    pass


PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="Policy file or folder. [env: BURSAR_POLICY] [default: the shipped policy]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@cli.command(short_help="Serve the gateway.", epilog=EXIT_CODES)
def serve(
    policy: PolicyOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [env: BURSAR_HOST] [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0 for any free one. [env: BURSAR_PORT] [default: 8080]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Gateway processes. [env: BURSAR_WORKERS] [default: 1]")
    ] = None,
) -> None:
    """Serve the gateway until it is told to stop (Ctrl-C, SIGTERM).

    Options beat BURSAR_* variables, which beat the defaults. A policy without keys is served on loopback only.

    Examples: bursar serve --port 9000 ; bursar serve --policy policies/ --host 0.0.0.0 --workers 4
    """
    from app.commands.serve import serve as run  # noqa: PLC0415  (each command pays for its own imports)

    raise typer.Exit(run(policy=policy, host=host, port=port, workers=workers))


@cli.command(
    short_help="Run an agent under a cap.",
    epilog="The exit code is the program's own; 2 wrong usage or no gateway; 127 no such program.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(
    program: Annotated[list[str], typer.Argument(help="The program and its arguments, behind `--`.")],
    cap: Annotated[
        float | None, typer.Option(min=0, help="Dollars that this run may spend, all calls together.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task's name. [default: a new name]")] = None,
    gateway: Annotated[
        str | None,
        typer.Option(help="URL of a running gateway. [default: the one on this machine, or one for this run]"),
    ] = None,
    model: Annotated[str, typer.Option(help="Route or model, for programs that need one.")] = "auto",
) -> None:
    """Run an agent under a cap: it goes through the gateway as one task, and a receipt comes at the end.

    claude, codex, gemini, opencode, pi, qwen, cline, cn, aider and mini are configured automatically, any other program
    by the usual variables (OPENAI_BASE_URL, ANTHROPIC_BASE_URL, GOOGLE_GEMINI_BASE_URL). If the gateway has keys, put
    yours into BURSAR_API_KEY. The terminal's title shows the cost so far.

    Examples: bursar run --cap 0.50 -- claude -p "fix the tests" ; bursar run --cap 2 -- python agent.py
    """
    from app.commands.run import run as start  # noqa: PLC0415

    raise typer.Exit(start(program, cap=cap, task=task, url=gateway, model=model))


cli.command("learn", short_help="Learn from traces and feedback.", epilog=LEARN_CODES)(learn)
cli.command("probe", short_help="Ask models the same as last time: is one worse?", epilog=PROBE_CODES)(probe)


@policy_commands.command("check", short_help="Check a policy.", epilog="Exit codes: 0 the policy is good; 1 it is not.")
def policy_check(path: Annotated[Path, typer.Argument(help="A policy file, or a folder of them.")]) -> None:
    """Say all that is wrong with a policy, as file:line:column, or show what it comes to.

    Variables are taken from the environment, as the gateway does. Example: bursar policy check policies/
    """
    from app.commands.policy import check  # noqa: PLC0415

    raise typer.Exit(check(path))


@policy_commands.command("schema", short_help="Print the JSON Schema of policies.")
def policy_schema() -> None:
    """Print the policy file's JSON Schema, for editors. Example: bursar policy schema > policy.schema.json"""
    from app.commands.policy import schema  # noqa: PLC0415

    schema()


@cli.command(short_help="Show prices.", epilog="Exit codes: 0 found; 1 no model of that name.")
def prices(
    model: Annotated[str | None, typer.Argument(help="Part of a model's name. [default: the policy's models]")] = None,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show prices in dollars per 1,000 tokens: the policy's models, and the catalogue's where a name is given.

    Examples: bursar prices ; bursar prices haiku ; bursar prices gpt-5 --json
    """
    from app.commands.prices import prices as show  # noqa: PLC0415

    raise typer.Exit(show(model, policy=policy, as_json=as_json))


@cli.command(
    short_help="Show what was spent and what the limits leave.",
    epilog="Exit codes: 0 found; 1 nothing on record, or the ledger does not answer.",
)
def spend(
    task: Annotated[str | None, typer.Option(help="Show this task, model by model.")] = None,
    key: Annotated[str | None, typer.Option(help="Show this key's windows and tasks; with --task, whose task.")] = None,
    team: Annotated[str | None, typer.Option(help="Show this team's windows.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Show this end user's windows, under each key that has one; with --key, whose.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was spent, what is set aside and what the limits are, straight from the ledger.

    The ledger is the one of BURSAR_DATA_DIR (default .bursar here), or of BURSAR_REDIS_URL.

    Examples: bursar spend ; bursar spend --task run-17 ; bursar spend --key ci --json ; bursar spend --user ann
    """
    from app.commands.spend import spend as show  # noqa: PLC0415

    if team is not None and (task, key, user) != (None, None, None):
        raise typer.BadParameter(
            "a team has no tasks, keys or users of its own here: ask for it alone", param_hint="--team"
        )
    if user is not None and task is not None:
        raise typer.BadParameter("tasks are not counted by user: ask for one of them", param_hint="--user")

    raise typer.Exit(show(task=task, key=key, team=team, user=user, as_json=as_json))


@cli.command(
    short_help="Show how fast and how cheaply runs succeed.",
    epilog="Exit codes: 0 answered; 1 traces or feedback cannot be read; 2 wrong usage or settings.",
)
def efficiency(
    by: Annotated[
        str, typer.Option(help="What to tell apart: model, harness, task_type, key, day, or several with commas.")
    ] = "model",
    since: Annotated[str, typer.Option(help="A span (24h, 7d), a date, a moment, or all.")] = "7d",
    key: Annotated[str | None, typer.Option(help="Only this key's runs.")] = None,
    judged: Annotated[bool, typer.Option("--judged", help="Only runs with feedback.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how fast and how cheap runs succeed: a run is a task, or a call that belongs to none.

    Medians are over runs that passed: feedback says so, or, without feedback, the last call completed and shows no
    sign of failure. `--judged` leaves out runs without feedback.

    Examples: bursar efficiency ; bursar efficiency --by harness,model --since 30d --json
    """
    from app.commands.efficiency import efficiency as show  # noqa: PLC0415

    raise typer.Exit(show(by=by, since=since, key=key, judged=judged, as_json=as_json))


@cli.command(
    "success-metrics",
    short_help="Show the ten measures of success.",
    epilog="Exit codes: 0 answered; 1 traces or feedback cannot be read; 2 wrong usage.",
)
def success_metrics(
    by: Annotated[str, typer.Option(help="What to tell apart: task_type, model, harness, key or day.")] = "task_type",
    since: Annotated[str, typer.Option(help="A span (24h, 7d), a date, a moment, or all.")] = "7d",
    key: Annotated[str | None, typer.Option(help="Only this key's runs.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: a target for a measure; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the ten measures of success, each with its 95 % interval and its target.

    Where too little is known it says "not enough data". What each measure counts is in
    app/learner/measures.py.

    Examples: bursar success-metrics ; bursar success-metrics --since 30d --target task_success_rate=0.9
    """
    from app.commands.success_metrics import success_metrics as show  # noqa: PLC0415

    raise typer.Exit(show(by=by, since=since, key=key, target=target or [], as_json=as_json))


@cli.command(
    short_help="Estimate another policy or router on recorded traffic.",
    epilog="Exit codes: 0 estimated; 1 refused, or nothing can be read; 2 wrong usage, settings or policy.",
)
def replay(
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The other policy. [default: the one in force]")
    ] = None,
    since: Annotated[str, typer.Option(help="A span (24h, 7d), a date, a moment, or all.")] = "7d",
    router: Annotated[
        str | None, typer.Option(help="A snapshot's number, `weights` or `heuristic`. [default: what is in force]")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Only this many of the latest traces.")] = 50_000,
    as_json: JsonOption = False,
) -> None:
    """Estimate what another policy or router would have cost and scored on recorded traffic.

    Each recorded decision is made again with the code that makes live ones. What would have come of it is estimated
    from those that went the same way by chance (a split, exploration), by inverse propensities, self-normalised, and
    doubly robust, with 95 % intervals; if none of them could have gone that way, it refuses. Caps, retries and the
    health of providers are not replayed.

    Examples: bursar replay --policy new.yaml --since 7d ; bursar replay --router 12 --json
    """
    from app.commands.replay import replay_command  # noqa: PLC0415

    raise typer.Exit(replay_command(policy=policy, since=since, router=router, most=most, as_json=as_json))


@cli.command(
    short_help="Write the dashboard's charts into one HTML file.",
    epilog="Exit codes: 0 written; 1 traces not readable, or the file not writable; 2 wrong usage or settings.",
)
def report(
    since: Annotated[str, typer.Option(help="A span (24h, 7d), a date, a moment, or all.")] = "7d",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    as_json: JsonOption = False,
) -> None:
    """Write the dashboard's charts into one HTML file that needs nothing else: to send, to keep, to read offline.

    Spending, endings, speed, calibration and budgets of the time since then; no prompts. Figures alone: --json.

    Examples: bursar report ; bursar report --since 30d --out november.html
    """
    from app.commands.report import report as write  # noqa: PLC0415

    raise typer.Exit(write(since=since, out=out, as_json=as_json))


@cli.command(
    short_help="Copy the data folder while gateways serve.",
    epilog="Exit codes: 0 copied; 1 not copied whole; 2 wrong usage or settings.",
)
def backup(
    out: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
) -> None:
    """Copy BURSAR_DATA_DIR as it is at one moment, while gateways serve: ledger, feedback, snapshots and traces.

    To go back to it: stop the gateways, put the copy in the place of the whole folder (no older file may stay in it),
    start them. What was spent since is forgotten.

    Example: bursar backup /backups/bursar-$(date +%F)
    """
    from app.commands.backup import backup as copy  # noqa: PLC0415

    raise typer.Exit(copy(out))


@cli.command(
    short_help="Train the learned router.",
    epilog="Exit codes: 0 written; 1 the data cannot be used, or teach too little; 2 wrong usage.",
)
def train(
    data: Annotated[
        Path | None, typer.Option(help="A folder of rows with outcomes (*.jsonl, *.jsonl.gz), or one file.")
    ] = None,
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Teach the weights in force by all recorded calls and feedback."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the weights. [default: the installed router's]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and rows give the same bytes.")] = 0,
    own: Annotated[
        bool, typer.Option("--own", help="The outcomes come from your own traffic, and are trusted fully.")
    ] = False,
) -> None:
    """Train the learned router from outcomes of models on questions, or from this gateway's own traffic; write weights.

    From traces the weights in force learn what a snapshot would, of all history. A model card is written beside them,
    unless there is one of these very weights. Serve them with BURSAR_ROUTER_WEIGHTS. The same traces and feedback give
    the same bytes.

    Examples: bursar train --data ours/ --own --out weights/ ; bursar train --traces --out weights/
    """
    if traces == (data is not None):
        raise typer.BadParameter("one of --data and --traces", param_hint="--data")
    pin_kernels()
    if data is not None:
        from app.commands.train import train as run  # noqa: PLC0415

        raise typer.Exit(run(data, out, seed=seed, own=own))
    if out is None or own or seed:
        raise typer.BadParameter("needs --out, and goes without --own and --seed", param_hint="--traces")
    from app.commands.teach import teach_command  # noqa: PLC0415

    raise typer.Exit(teach_command(out))


@keys_commands.command("new", short_help="Make a key.")
def keys_new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, `.`, `_`, `-`.")],
    admin: Annotated[
        bool, typer.Option("--admin", help="May see everybody's calls and spending, and use the dashboard.")
    ] = False,
    judges: Annotated[
        bool, typer.Option("--judges", help="May give feedback on any key's calls, and nothing else: for a verifier.")
    ] = False,
    probes: Annotated[
        bool, typer.Option("--probes", help="May send probes (`bursar probe`), and is believed on them.")
    ] = False,
    team: Annotated[
        str | None, typer.Option(help="The team, one of the policy's, whose caps it draws on as well.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it stops working: a day or a time (UTC).")] = None,
) -> None:
    """Make a key: print the secret, once, and the line that lets the policy know it.

    Nothing is kept here; the policy holds only the hash. Example: bursar keys new ci
    """
    from app.commands.keys import new  # noqa: PLC0415

    raise typer.Exit(new(name, admin=admin, judges=judges, probes=probes, team=team, expires=expires))


@cli.command()
def version() -> None:
    """Print the version."""
    _say_version(asked=True)
