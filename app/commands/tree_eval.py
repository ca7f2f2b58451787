"""`bursar eval`: what it understands; what it does is in `app/commands/evaluate.py`, imported when asked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.commands.kernels import pin_kernels

EXIT_CODES = "Exit codes: 0 done; 1 it could not go on; 2 wrong usage, data or router."

eval_commands = typer.Typer(no_args_is_help=True, help="Evaluate routers on recorded outcomes.", callback=pin_kernels)


class CvChoice(StrEnum):
    """What is held out: nothing trained, random questions, whole families, whole sources."""

    NONE = "none"
    RANDOM = "random"
    FAMILY = "family"
    SOURCE = "source"


DataOption = Annotated[Path, typer.Option("--data", help="Folder of *.jsonl[.gz] files of rows with outcomes, or one.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of splits, simulations and the bootstrap.")]
PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices", help="YAML or JSON, `model: [input, output]` in $ per million tokens. It beats recalled ones."
    ),
]
JsonOption = Annotated[str | None, typer.Option("--json", help="Write everything as JSON; - prints it instead.")]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write tables and plots as one HTML file.")]
PngOption = Annotated[Path | None, typer.Option("--png", help="Write the plots as PNG.")]


@eval_commands.command("router", short_help="Evaluate routers.", epilog=EXIT_CODES)
def eval_router(
    data: DataOption,
    router: Annotated[
        list[str] | None,
        typer.Option(
            "--router",
            help="learned, heuristic, module:callable or file.py:callable; repeatable. [default: learned, heuristic]",
        ),
    ] = None,
    cv: Annotated[CvChoice, typer.Option(help="none: the shipped weights as they are.")] = CvChoice.NONE,
    json: JsonOption = None,
    html: HtmlOption = None,
    png: PngOption = None,
    seed: SeedOption = 0,
    prices: PricesOption = None,
    models: Annotated[str, typer.Option(help="Only these models, with commas between. [default: all]")] = "",
    strong: Annotated[str | None, typer.Option(help="The strong model of RouteLLM's pair. [default: the best]")] = None,
    weak: Annotated[str | None, typer.Option(help="The weak model of RouteLLM's pair. [default: the cheapest]")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of question groups for intervals.")] = 1000,
    baselines: Annotated[bool, typer.Option(help="Fit the baselines that must be fitted, too.")] = True,
) -> None:
    """Evaluate routers on recorded outcomes of any models, beside baselines, with 95 % intervals.

    With --cv none, rows that the shipped weights were trained on flatter them: --cv family and source train anew.

    Settings are chosen on validation rows and tested on others: with --cv none on one half and the other in turn. A
    plug-in is `callable(prompts, models)` -> matrix of P(success), or RouteLLM's `callable(prompt)` -> how much the
    strong model of the pair is needed.

    Examples: bursar eval router --data rows/ ; bursar eval router --data rows/ --router learned --cv family --json -
    """
    from app.commands.evaluate import Asked, Outputs  # noqa: PLC0415  (each command pays for its own imports)
    from app.commands.evaluate import router as run  # noqa: PLC0415

    asked = Asked(
        tuple(router or ["learned", "heuristic"]), cv.value, seed, bootstrap, _names(models), strong, weak, baselines
    )
    raise typer.Exit(run(data, asked, prices=prices, outputs=Outputs(json, html, png)))


@eval_commands.command("new-model", short_help="Add a model by a few of its outcomes.", epilog=EXIT_CODES)
def eval_new_model(
    data: DataOption,
    model: Annotated[
        str | None, typer.Option("--model", help="Its name in the data. [default: six of each source, weakest to best]")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Numbers of its outcomes to learn from, with commas between.")
    ] = "0,20,50",
    draws: Annotated[int, typer.Option(min=1, help="How often outcomes are drawn and questions halved.")] = 30,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train on the data without the model first.")] = False,
    cv: Annotated[
        CvChoice, typer.Option(help="none, or source: train for each source on the others first.")
    ] = CvChoice.NONE,
    json: JsonOption = None,
    html: HtmlOption = None,
    png: PngOption = None,
    seed: SeedOption = 0,
    prices: PricesOption = None,
) -> None:
    """Add a model by a few of its outcomes: the error of its predicted success rate, and what routing with it loses.

    Beside it: a logistic regression from scratch, its own mean, the mean of all models and of those of its tier.

    Examples: bursar eval new-model --data rows/ --model gpt-4o-2024-08-06 --labels 0,20,50 ;
    bursar eval new-model --data rows/ --cv source --draws 6
    """
    from app.commands.evaluate import Outputs  # noqa: PLC0415
    from app.commands.new_model import AskedOfNew  # noqa: PLC0415
    from app.commands.new_model import new_model as run  # noqa: PLC0415

    counts = [int(part) if part.isdecimal() else -1 for part in _names(labels)]
    if not counts or min(counts) < 0:
        raise typer.BadParameter("must be whole numbers with commas between, such as 0,20,50", param_hint="--labels")
    if cv not in (CvChoice.NONE, CvChoice.SOURCE):
        raise typer.BadParameter("must be none or source", param_hint="--cv")
    if retrain and (model is None or cv is CvChoice.SOURCE):
        raise typer.BadParameter("goes with --model and without --cv source", param_hint="--retrain")
    asked = AskedOfNew(model, counts, draws, seed, retrain, apart=cv is CvChoice.SOURCE)
    raise typer.Exit(run(data, asked, prices=prices, outputs=Outputs(json, html, png)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


@eval_commands.command("loop", short_help="Put the learning loop to the test.", epilog=EXIT_CODES)
def eval_loop(
    data: DataOption,
    experiment: Annotated[
        list[str] | None,
        typer.Option("--experiment", help="One of them, such as regret or drift; may be repeated. [default: all]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each experiment, with seeds from 0.")] = 20,
    json: JsonOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write tables and marks as Markdown.")] = None,
    prices: PricesOption = None,
) -> None:
    """Put the learning loop to the test on recorded outcomes, replayed as streams: regret, drift, newcomers and more.

    Weights are trained anew without the source that is streamed. Falls of a model and lies are injected, and said so.

    Example: bursar eval loop --data rows/ --experiment drift --out drift.md
    """
    from app.commands.loop_eval import loop as run  # noqa: PLC0415

    raise typer.Exit(run(data, experiment or [], seeds=seeds, prices=prices, to=json, out=out))
