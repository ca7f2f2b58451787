"""The whole way of an alert at the speed that is shipped: python -m tests.stack.alarm (seven minutes).

The topology of `make stack` comes up with one thing changed: Alertmanager's receivers are this program. Then Redis is
killed and started again. BursarLedgerDown must ring, with its labels and its runbook, and be called off; what follows
from it is to be told by nobody.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.stack.receiver import Receiver
from tests.stack.topology import Stack, missing
from tests.tools import alertmanager

ALERT, FOLLOWS = "BursarLedgerDown", "BursarLedgerErrors"
POLICY = """
version: 1
providers: {p: {base_url: "http://127.0.0.1:9/v1"}}
models: {m: {provider: p, pricing: {input_per_1k: 0.001, output_per_1k: 0.01}}}
"""
PATIENCE_S = 600.0


def main() -> int:
    """Kill the ledger, wait to be told, bring it back, wait to be told."""
    if (lacking := missing()) or alertmanager() is None:
        print(f"Not here: {', '.join([*lacking, *([] if alertmanager() else ['alertmanager'])])}")
        return 1
    with tempfile.TemporaryDirectory() as name, Receiver() as receiver:
        folder = Path(name)
        (folder / "policy.yaml").write_text(POLICY)
        stack = Stack(folder, folder / "policy.yaml", {}, scrape_s=15, receiver=receiver.url)
        try:
            stack.start()
            return alarm(stack, receiver)
        finally:
            stack.close()


def alarm(stack: Stack, receiver: Receiver) -> int:
    """Both words, with how long each took."""
    time.sleep(30)  # Prometheus has seen it well
    begun = time.monotonic()
    stack.redis.kill()
    waited(lambda: len(receiver.of(ALERT, "firing")) >= 2)
    for told in receiver.of(ALERT, "firing"):
        print(f"{told.at_s - begun:5.0f} s after the ledger died, {told.receiver} hears:")
        print(f"      {told.alert['labels']}")
        print(f"      {told.alert['annotations']}")
        assert told.receiver == "at-once"
        assert told.alert["labels"]["severity"] == "critical"
        assert told.alert["annotations"]["runbook"] == "deploy/runbook.md#bursarledgerdown"
    begun = time.monotonic()
    stack.redis.start()
    waited(lambda: len(receiver.of(ALERT, "resolved")) >= 2)
    last = receiver.of(ALERT, "resolved")[-1]
    print(f"{last.at_s - begun:5.0f} s after it is back, {last.receiver} hears that it is over.")
    assert not receiver.of(FOLLOWS, "firing")
    print(f"Nobody was told of {FOLLOWS}.")
    return 0


def waited(true: Callable[[], object]) -> None:
    """Wait for something that nothing announces."""
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
