"""Whoever is to hear of alerts: a real HTTP server that keeps what Alertmanager's webhooks tell it.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Told:
    """One alert of one notification: whom it went to, what it said, and when (`time.monotonic`)."""

    receiver: str
    alert: dict[str, Any]
    at_s: float

    @property
    def name(self) -> str:
        """The alert's name."""
        name: str = self.alert["labels"]["alertname"]
        return name


class Receiver:
    """Listens while the `with` block runs; `told` grows."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert said["version"] == "4"
                told.extend(Told(said["receiver"], alert, time.monotonic()) for alert in said["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, name: str, status: str) -> list[Told]:
        """What was told of one alert: that it is `firing`, or `resolved`."""
        return [told for told in self.told if (told.name, told.alert["status"]) == (name, status)]
