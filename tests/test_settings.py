"""The environment as settings: what is set to nothing is not set, and what is nearly one is told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.settings import DEFAULT_POLICY, Settings, misspelt


def test_an_empty_variable_is_as_if_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLICY", "PORT", "REDIS_URL", "LEARN"):
        monkeypatch.setenv(f"BURSAR_{name}", "")
    settings = Settings()
    assert (settings.policy, settings.port, settings.redis_url, settings.learn) == (DEFAULT_POLICY, 8080, None, True)


@pytest.mark.parametrize("name", ["a{b", "{}"])
def test_a_namespace_that_redis_could_not_hash_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_REDIS_NAMESPACE", name)
    with pytest.raises(ValidationError, match="redis_namespace"):
        Settings()


def test_a_level_that_no_log_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_LOG_LEVEL", "loud")
    with pytest.raises(ValidationError, match="log_level"):
        Settings()
    monkeypatch.setenv("BURSAR_LOG_LEVEL", "WARNING")
    assert Settings().log_level == "WARNING"


def test_a_name_that_is_nearly_a_setting_is_told_and_others_may_be_a_policys_own() -> None:
    names = ["BURSAR_WORKER", "BURSAR_LEARM", "BURSAR_PORT", "BURSAR_LOCAL_PORT", "BURSAR_API_KEY", "BURSAR_TASK_ID"]
    names += ["BURSAR_CUSTOM_BASE_URL", "BURSAR_CUSTOM_MODEL", "BURSAR_KEY_SHA256", "WORKER"]
    assert misspelt(names) == {"BURSAR_LEARM": "BURSAR_LEARN", "BURSAR_WORKER": "BURSAR_WORKERS"}
