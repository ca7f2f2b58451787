"""`python -m tests.bench`: what the gateway itself costs, in CPU, latency and memory. See README.md beside this."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench import machine
from tests.bench.canned import ROUTE
from tests.bench.memory import Growth, grow
from tests.bench.micro import BATCH_S, Part, all_parts
from tests.bench.micro_learning import learning_parts
from tests.bench.micro_traces import trace_parts
from tests.bench.report import Report
from tests.bench.scenarios import DEFAULT, SCENARIOS, Row, Scenario, measure
from tests.bench.systems import System, answers, peer, running_gateway, running_store, running_stub

REMARKS = (
    "us/request and us/chunk: user and system time of the gateway's process tree, from /proc (what Redis uses is not "
    "in it), over all requests; CPU per chunk falls with load, so read it with chunks/s",
    "added: the gateway's percentile minus that of `direct`, the stub without a gateway, in the same run",
    "compare figures of one run only; the same code has varied by 30 % between hours",
)


class Findings(msgspec.Struct):
    """What `--json` writes."""

    how: dict[str, str]
    store: str
    scenarios: list[Row] = []
    memory: Growth | None = None
    micro: list[Part] = []


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--scenarios", type=_scenarios, metavar="NAMES", help=f"of {','.join(SCENARIOS)}; default {','.join(DEFAULT)}"
    )
    parser.add_argument("--reps", type=_positive, default=3, help="runs of each scenario, after a warm-up")
    parser.add_argument("--seconds", type=float, help="length of a run, instead of each scenario's own")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--memory", type=_positive, metavar="N", help="send N requests and watch RSS")
    parser.add_argument("--micro", action="store_true", help="CPU of the parts, each alone")
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=URL", help="latency only")
    parser.add_argument("--stub-port", type=int, default=0, help="a fixed port, for peers' configuration")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    chosen = parser.parse_args(arguments)
    if chosen.scenarios is None:
        chosen.scenarios = [] if chosen.memory or chosen.micro else _scenarios(",".join(DEFAULT))
    return chosen


def _scenarios(text: str) -> list[Scenario]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in names]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def run(chosen: argparse.Namespace, report: Report) -> Findings:
    """Measure what was asked for, and print it."""
    first, second = machine.cores()
    findings = Findings(machine.how_taken(chosen.store), chosen.store)
    with machine.pinned(second), contextlib.ExitStack() as running:
        if chosen.scenarios or chosen.memory:
            stub = running.enter_context(running_stub(chosen.stub_port))
            url = running.enter_context(running_store(chosen.store))
            gateway = running.enter_context(running_gateway(stub, url, first))
            _measure(chosen, report, findings, [stub, gateway, *_answering(chosen.peer, report)])
            if chosen.memory:
                findings.memory = grow(gateway, chosen.memory, say=report.progress)
                report.memory(findings.memory)
    if chosen.micro:
        with machine.pinned(first):
            findings.micro = [*all_parts(report.progress), *learning_parts(BATCH_S), *trace_parts()]
        report.micro(findings.micro)
    served = [f"ledger and traces on {chosen.store}"] if chosen.scenarios or chosen.memory else []
    report.how(findings.how, [*served, *(REMARKS if chosen.scenarios else ())])
    return findings


def _measure(chosen: argparse.Namespace, report: Report, findings: Findings, systems: list[System]) -> None:
    if chosen.scenarios:
        findings.scenarios = measure(
            systems, chosen.scenarios, reps=chosen.reps, seconds=chosen.seconds, say=report.progress
        )
        report.scenarios(findings.scenarios)


def _answering(peers: list[System], report: Report) -> list[System]:
    found = [each for each in peers if answers(each)]
    for each in peers:
        if each not in found:
            report.note(f"{each.name} does not answer a chat completion for the model `{ROUTE}`: left out")
    return found


def main() -> None:
    """The command."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes started here end too
    findings = run(chosen, Report(sys.stdout))
    if chosen.json is not None:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(findings)) + b"\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
