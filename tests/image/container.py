"""Runs a built image as docker-compose.yml does: its root read-only, no capabilities, no new privileges, its user.

No engine: a mount namespace, chroot and setpriv of the image itself. The network is this machine's.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.image.builder import Image
from tests.stack.processes import answers

READY_S = 60.0
INSIDE = """
set -e
root=$1; policy=$2; user=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o size=256m,uid="${user%:*}",gid="${user#*:}",mode=0750 tmpfs "$root/var/lib/bursar"
mount --bind "$policy" "$root/etc/bursar/policy"
mount -o remount,bind,ro "$root/etc/bursar/policy"
mount -o remount,bind,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs \\
    --bounding-set=-all --inh-caps=-all /usr/bin/env -i "$@"
"""
"""What compose mounts: `policy` is the folder that the gateway watches."""


class Container:
    """The image's own command, serving while the `with` block runs. `settings` are laid over its environment."""

    def __init__(self, image: Image, policy: Path, settings: Mapping[str, str], log: Path) -> None:
        self.image, self.log = image, log
        config = image.config
        self.environment = {**dict(pair.split("=", 1) for pair in config["Env"]), **settings}
        self.port = int(self.environment["BURSAR_PORT"])
        command = [*config["Entrypoint"], *config["Cmd"]]
        inside = ["bash", "-c", INSIDE, "container", str(image.root), str(policy), config["User"]]
        given = [f"--chdir={config['WorkingDir']}", *(f"{name}={value}" for name, value in self.environment.items())]
        self._command = ["unshare", "--mount", "--propagation=private", *inside, *given, *command]

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + READY_S
        while not answers(f"http://127.0.0.1:{self.port}/readyz"):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise AssertionError(self.log.read_text())
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as root: what even root cannot write, nobody can."""
        inside = ["nsenter", f"--target={self.process.pid}", "--mount", "chroot", f"/proc/{self.process.pid}/root"]
        given = [f"{name}={value}" for name, value in self.environment.items()]
        done = subprocess.run(
            [*inside, "/usr/bin/env", "-i", *given, *command], capture_output=True, text=True, check=False
        )
        return done

    def status(self) -> dict[str, str]:
        """What the kernel says of its process: user, capabilities, privileges."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}
