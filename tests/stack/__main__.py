"""`make stack`: the topology of docker-compose.yml as plain processes, until Ctrl-C.

python -m tests.stack [--policy PATH] [--port 8080] [--folder .bursar/stack]
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from tests.stack.topology import Stack, missing
from tests.tools import alertmanager

LOOK_EVERY_S = 0.5


def main() -> int:
    """Bring it up, say where everything is, keep it up, end it in order."""
    asked = argparse.ArgumentParser(prog="make stack", description="The compose topology as plain processes.")
    asked.add_argument("--policy", type=Path, default=Path("policies/default.yaml"))
    asked.add_argument("--port", type=int, default=8080, help="where clients go")
    asked.add_argument("--folder", type=Path, default=Path(".bursar/stack"), help="logs and data")
    options = asked.parse_args()
    if lacking := missing():
        print(f"Not here, and not to be had from Debian's packages: {', '.join(lacking)}")
        return 1
    settings = {"BURSAR_DRAIN_NOTICE_S": "3", "BURSAR_DRAIN_S": "30"}
    stack = Stack(options.folder.absolute(), options.policy.absolute(), settings, port=options.port)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    try:
        print("Bringing the stack up ...", flush=True)
        stack.start()
        print(greeting(stack), flush=True)
        while not over.wait(LOOK_EVERY_S):
            stack.tend()
        print("Ending: gateways let their streams finish ...", flush=True)
    except RuntimeError as error:
        print(error)
        return 1
    finally:
        stack.close()
    return 0


def greeting(stack: Stack) -> str:
    """Where everything is, and how to end or kill a part of it."""
    pids = "\n".join(f"  {program.name:<12} process {program.pid}" for program in stack.programs)
    manager = f"  Alertmanager {stack.alertmanager_url}/\n" if alertmanager() else ""
    return f"""
  OPENAI_BASE_URL={stack.url}/v1

{pids}
  {"redis":<12} {stack.redis.url}

  HAProxy      http://127.0.0.1:{stack.watch_port}/
  Prometheus   {stack.prometheus_url}/alerts
{manager}  Logs, data   {stack.folder}

  kill -9 PROCESS kills a gateway, kill PROCESS drains it; either comes back. Ctrl-C here ends everything.
"""


if __name__ == "__main__":
    raise SystemExit(main())
