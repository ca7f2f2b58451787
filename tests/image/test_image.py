"""The image is built, really, and serves as it is deployed. `make test-image` runs this, as root: it takes minutes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.commands.serve import free_port
from tests.image.builder import Builder, Image, missing
from tests.image.container import Container
from tests.tools import ROOT
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

KEY = "sk-bursar-of-the-test"
USER = 10001
SAID = "One two three."

if os.geteuid() != 0:
    pytest.skip("needs root", allow_module_level=True)
if lacking := missing():
    pytest.skip(f"not here: {', '.join(lacking)}", allow_module_level=True)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    yield Builder(folder).build()
    shutil.rmtree(folder)  # gigabytes: pytest would keep those of the last three runs


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(Script.of(words(SAID))) as running:
        yield running


@pytest.fixture
def container(image: Image, upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Container]:
    settings = {
        "BURSAR_PORT": str(free_port()),
        "BURSAR_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
        "BURSAR_CUSTOM_BASE_URL": upstream.url,
        "BURSAR_CUSTOM_MODEL": "m",
        "BURSAR_DRAIN_NOTICE_S": "0",
    }
    with Container(image, ROOT / "deploy" / "policy" / "live", settings, tmp_path / "log") as running:
        yield running


def ask(container: Container, method: str, path: str, body: object = None, key: str = KEY) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=20)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    return connection.getresponse()


def chat(container: Container, *, key: str = KEY, stream: bool = False) -> http.client.HTTPResponse:
    body = {"model": "custom", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return ask(container, "POST", "/v1/chat/completions", body, key)


def test_it_says_how_it_is_to_be_run(image: Image) -> None:
    config = image.config
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == (f"{USER}:{USER}", ["bursar"], ["serve"])
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert image.health[0] == "python"


def test_it_holds_what_serving_needs_and_nothing_that_builds(image: Image) -> None:
    (packages,) = image.root.glob("opt/bursar/lib/python3.*/site-packages")
    assert {"app", "routers", "litellm", "duckdb"} <= {path.name for path in packages.iterdir()}
    assert (packages / "routers" / "weights").is_dir()
    assert (packages / "app" / "http" / "dashboard" / "static").is_dir()
    left = ("pip", "setuptools", "hatchling", "editables", "xllamacpp", "pytest")
    assert not [name for name in left if (packages / name).exists()]
    writable = [path for path in (image.root / "opt/bursar").rglob("*") if path.lstat().st_uid or _others_write(path)]
    assert not writable


def _others_write(path: Path) -> bool:
    return not path.is_symlink() and bool(path.stat().st_mode & 0o002)


def test_it_serves_on_a_root_that_nobody_can_write_to(container: Container) -> None:
    assert ask(container, "GET", "/healthz").status == 200
    answer = chat(container)
    assert answer.status == 200
    request_id = answer.headers["x-request-id"]
    assert json.loads(answer.read())["choices"][0]["message"]["content"] == SAID
    assert chat(container, key="another").status == 401
    for path in (f"/v1/decisions/{request_id}", "/v1/efficiency?by=model", "/dashboard", "/metrics"):
        assert ask(container, "GET", path).status == 200, path
    status = container.status()
    assert status["Uid"] == f"{USER} {USER} {USER} {USER}"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    for place in ("/there", "/opt/bursar/there", "/etc/bursar/policy/there"):
        assert "Read-only file system" in container.run("touch", place).stderr
    assert container.run("sh", "-c", "test -s /var/lib/bursar/ledger.sqlite").returncode == 0


def test_its_health_check_is_the_images_own(container: Container, image: Image) -> None:
    assert container.run(*image.health).returncode == 0
    container.environment["BURSAR_PORT"] = str(free_port())
    assert container.run(*image.health).returncode != 0


def test_a_stream_under_way_is_let_finish(container: Container, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words(SAID), gate=gate)
    gate.release()
    answer = chat(container, stream=True)
    assert b"One" in answer.readline() + answer.readline() + answer.readline()
    container.process.send_signal(signal.SIGTERM)
    gate.open()
    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert container.process.wait(60) == 0
