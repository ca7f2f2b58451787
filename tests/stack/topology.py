"""What docker-compose.yml brings up, as plain processes on loopback, from the same files of `deploy/`.

Two gateways behind HAProxy, one ledger in Redis with its append-only file, Prometheus with our rules, Alertmanager with
our routes (where it can be started), and the learner.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.redis_server import RedisServer, options_of
from tests.stack.processes import Program, answers, clean_environment, free_ports
from tests.tools import ROOT, alertmanager, environment_of, tool

DEPLOY = ROOT / "deploy"
NEEDED = ("haproxy", "prometheus")
_WAIT = re.compile(r"\b((?:for|resolve_timeout|group_wait|group_interval|repeat_interval): )(\d+)([smh])\b")


def missing() -> list[str]:
    """Programs without which the stack cannot come up."""
    return [name for name in NEEDED if tool(name) is None]


def hurried(text: str, by: int) -> str:
    """A configuration whose waits are that many times shorter; ranges of queries stay as they are."""
    units = {"s": 1, "m": 60, "h": 3600}

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(int(found[2]) * units[found[3]] * 1000 // by, 1)}ms"

    return text if by == 1 else _WAIT.sub(shorter, text)


class Stack:
    """The processes, started by `start` in order and ended by `close` in the opposite order.

    `settings` are BURSAR_* variables of both gateways; `scrape_s` is how often Prometheus looks. `receiver`: the URL of
    a webhook that is to hear of all alerts; `hurry`: by how much what alerts wait for is shorter than it is shipped.
    """

    def __init__(
        self,
        folder: Path,
        policy: Path,
        settings: Mapping[str, str],
        *,
        port: int = 0,
        scrape_s: float = 5,
        receiver: str | None = None,
        hurry: int = 1,
    ):
        self.folder = folder
        self._receiver, self._hurry = receiver, hurry
        folder.mkdir(parents=True, exist_ok=True)
        free = free_ports(6)
        self.port = port or free[0]
        self.watch_port, self.prometheus_port, self.alertmanager_port, *self.gateway_ports = free[1:]
        self.redis = RedisServer(*options_of(DEPLOY / "redis" / "redis.conf"))
        self._policy, self._settings, self._scrape_s = policy, dict(settings), scrape_s
        self.programs: list[Program] = []

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus answers."""
        return f"http://127.0.0.1:{self.prometheus_port}"

    @property
    def alertmanager_url(self) -> str:
        """Where Alertmanager answers."""
        return f"http://127.0.0.1:{self.alertmanager_port}"

    def start(self) -> None:
        """Bring everything up; returns when all of it serves."""
        self.redis.start()
        gateways = [self._gateway(number, port) for number, port in enumerate(self.gateway_ports, 1)]
        self.programs = [*gateways, self._balancer(), *self._alertmanager(), self._prometheus(), self._learner()]
        for program in self.programs:
            program.start()
        for program in self.programs:
            program.wait_until_ready()

    def program(self, name: str) -> Program:
        """The program of that name, as docker-compose.yml calls it."""
        return next(program for program in self.programs if program.name == name)

    def tend(self) -> None:
        """Start again what died and is to be kept, as a container's restart policy does."""
        for program in self.programs:
            if program.again and program.code is not None:
                program.start()

    def close(self) -> None:
        """End everything: the gateways first, which let their streams finish, and what these need after them."""
        serving = [program for program in self.programs if program.again]
        for program in serving:
            program.signal(signal.SIGTERM)
        for program in serving + [program for program in self.programs if program not in serving]:
            program.stop()
        self.redis.stop()
        self.redis.close()

    def _gateway(self, number: int, port: int) -> Program:
        name = f"gateway-{number}"
        environment = self._bursar(BURSAR_DATA_DIR=str(self.folder / name))
        command = [sys.executable, "-m", "app.cli", "serve", "--policy", str(self._policy), "--port", str(port)]
        return self._made(name, command, environment, f"http://127.0.0.1:{port}/readyz", again=True)

    def _learner(self) -> Program:
        environment = self._bursar(BURSAR_DATA_DIR=str(self.folder / "learner"), BURSAR_POLICY=str(self._policy))
        return self._made("learner", [sys.executable, "-m", "app.cli", "learn"], environment, None, again=True)

    def _bursar(self, **more: str) -> dict[str, str]:
        return clean_environment(
            PYTHONPATH=str(ROOT), BURSAR_REDIS_URL=self.redis.url, BURSAR_LOG_FORMAT="json", **self._settings, **more
        )

    def _balancer(self) -> Program:
        program = tool("haproxy")
        assert program is not None
        environment = {
            **environment_of(program),
            "BURSAR_LISTEN": f"127.0.0.1:{self.port}",
            "BURSAR_WATCH": f"127.0.0.1:{self.watch_port}",
            **{f"BURSAR_GATEWAY_{n}": f"127.0.0.1:{port}" for n, port in enumerate(self.gateway_ports, 1)},
        }
        command = [str(program), "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")]
        return self._made("balancer", command, environment, f"{self.url}/readyz")

    def _prometheus(self) -> Program:
        program = tool("prometheus")
        assert program is not None
        home = self.folder / "prometheus"
        shutil.rmtree(home / "rules", ignore_errors=True)
        shutil.copytree(DEPLOY / "prometheus" / "rules", home / "rules")
        for page in (home / "rules").iterdir():
            page.write_text(hurried(page.read_text(), self._hurry))
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], f"{int(self._scrape_s * 1000)}ms")
        targets = {"bursar": self.gateway_ports, "haproxy": [self.watch_port]}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets[job["job_name"]]]}]
        (manager,) = config["alerting"]["alertmanagers"]
        manager["static_configs"] = [{"targets": [f"127.0.0.1:{self.alertmanager_port}"]}]
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            str(program),
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
        ]
        return self._made("prometheus", command, environment_of(program), f"{self.prometheus_url}/-/ready")

    def _alertmanager(self) -> list[Program]:
        program = alertmanager()
        if program is None:
            return []
        command = [
            *program,
            f"--config.file={self._alerted()}",
            f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.alertmanager_port}",
            "--cluster.listen-address=",
        ]
        return [self._made("alertmanager", command, clean_environment(), f"{self.alertmanager_url}/-/ready")]

    def _alerted(self) -> Path:
        """Alertmanager's configuration as it is shipped, but for its receivers, and its waits where there is hurry."""
        config = yaml.safe_load(hurried((DEPLOY / "alertmanager" / "alertmanager.yml").read_text(), self._hurry))
        if self._receiver is not None:
            for receiver in config["receivers"]:
                receiver["webhook_configs"] = [{"url": self._receiver, "send_resolved": True}]
        page = self.folder / "alertmanager.yml"
        page.write_text(yaml.safe_dump(config))
        return page

    def _made(
        self, name: str, command: list[str], environment: dict[str, str], url: str | None, *, again: bool = False
    ) -> Program:
        ready = (lambda: True) if url is None else (lambda: answers(url))
        return Program(name, command, environment, self.folder / f"{name}.log", ready, again)
