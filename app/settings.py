"""The environment, read once: `BURSAR_*` variables become one frozen value."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

import routers

_APP = Path(__file__).resolve().parent
DEFAULT_POLICY = next(
    (p for p in (_APP.parent / "policies" / "default.yaml", _APP / "policies" / "default.yaml") if p.is_file()),
    _APP.parent / "policies" / "default.yaml",
)
"""In a checkout beside the package, in a wheel inside it."""
SHIPPED_WEIGHTS = Path(routers.__file__).resolve().parent / "weights"


def installed_version() -> str:
    """The version of the installed package; "unknown" where the source runs uninstalled."""
    try:
        return importlib.metadata.version("bursar")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Settings(BaseSettings):
    """What the process needs to know before it reads a policy."""

    model_config = SettingsConfigDict(env_prefix="BURSAR_", env_ignore_empty=True, frozen=True, extra="ignore")

    policy: Path = Field(default=DEFAULT_POLICY, description="policy file or folder")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0: any free one")
    workers: int = Field(default=1, ge=1, description="gateway processes on this port")
    data_dir: Path = Field(default=Path(".bursar"), description="where the embedded ledger and traces live")
    redis_url: SecretStr | None = Field(default=None, description="share the ledger: redis://, rediss://, unix://")
    redis_namespace: str = Field(
        default="bursar", pattern="^[^{}]+$", description="the hash tag of all of Bursar's keys in Redis"
    )
    traces_url: SecretStr | None = Field(
        default=None,
        description="where traces are kept as Parquet, any URL that fsspec knows; default: DATA_DIR/traces/parquet",
    )
    traces_keep_days: float = Field(default=90.0, ge=0, description="remove traces of older days; 0: never")
    traces_compact: bool = Field(
        default=True, description="compact traces into Parquet while serving, in a separate process"
    )
    router_weights: Path = Field(
        default=SHIPPED_WEIGHTS, description="the learned router's weights, as `bursar train` writes them"
    )
    learn: bool = Field(
        default=True,
        description=(
            "learn from traces and feedback while serving, in a separate process (with Redis, `bursar learn` does that)"
        ),
    )
    learn_every_s: float = Field(
        default=30.0, gt=0, description="how often the learner looks for new traces and feedback"
    )
    snapshot_labels: int = Field(default=50, ge=1, description="a snapshot is made after this many labels")
    snapshot_every_s: float = Field(default=300.0, gt=0, description="or after this long, if there are any labels")
    snapshots_keep: int = Field(default=10, ge=1, description="how many snapshots are kept to roll back to")
    prices_url: str | None = Field(default=None, description="refresh the price catalogue from here, in the background")
    prices_every_s: float = Field(default=6 * 3600.0, gt=0, description="how often")
    max_body_bytes: int = Field(default=32 * 1024 * 1024, gt=0, description="larger requests get 413")
    body_idle_s: float = Field(
        default=30.0, gt=0, description="a request of whose body nothing arrives for this long is refused"
    )
    body_s: float = Field(default=120.0, gt=0, description="and so is one that has not arrived whole after this long")
    drain_notice_s: float = Field(
        default=0.0,
        ge=0,
        description="how long to go on serving after SIGTERM while /readyz fails, so that balancers notice",
    )
    drain_s: float = Field(default=30.0, ge=0, description="how long streams may finish after that")
    policy_edit: bool = Field(
        default=False, description="let operators edit the policy's files on the dashboard, and make keys over HTTP"
    )
    keep_comments: bool = Field(default=False, description="store comments of feedback, which may contain anything")
    otel: bool = Field(
        default=False, description="send a span of each call by OTLP, to where OTEL_* say (needs bursar[otel])"
    )
    log_level: str = Field(
        default="info",
        pattern="^(?i:debug|info|warning|error|critical)$",
        description="debug, info, warning, error or critical",
    )
    log_format: str = Field(
        default="auto", pattern="^(auto|json|console)$", description="auto: console on a terminal, else json"
    )


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Of the environment's names those that are nearly a setting, with that setting. Others may be a policy's own."""
    settings = list(Settings.model_fields)
    found: dict[str, str] = {}
    for name in sorted(names):
        said = name.removeprefix("BURSAR_").lower()
        if name.startswith("BURSAR_") and said not in settings:
            for close in difflib.get_close_matches(said, settings, n=1, cutoff=0.8):
                found[name] = f"BURSAR_{close.upper()}"
    return found
