"""The shipped policy and its schema: they load, say the truth about caps, and are up to date."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from app.core.money import default_model_cap, usd_text
from app.core.policy import BILLS_AFTER_CANCEL_HOSTS, Policy
from app.stores.policy_file import load_policy
from app.stores.policy_model import json_schema
from app.stores.prices import load_bundled
from tests.stores.policy_texts import CONTRACT, DEFAULT_POLICY

KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "TOGETHER", "FIREWORKS", "GROQ", "MISTRAL", "OPENROUTER")
EVERYTHING = {f"{name}_API_KEY": "sk-x" for name in KEYS} | {
    "BURSAR_CUSTOM_BASE_URL": "http://127.0.0.1:8000/v1",
    "BURSAR_CUSTOM_MODEL": "qwen",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
TEXT = DEFAULT_POLICY.read_text()
SCHEMA = DEFAULT_POLICY.parent / "policy.schema.json"


def load(**env: str) -> Policy:
    return load_policy(DEFAULT_POLICY, env=env, catalogue=load_bundled())


def test_with_an_empty_environment_the_embedded_model_serves_every_name() -> None:
    policy = load()
    assert list(policy.models) == ["smollm2"]
    assert policy.unknown_model == "auto"
    assert policy.open_access
    smollm2 = policy.models["smollm2"]
    assert smollm2.provider.embedded == "smollm2"
    assert smollm2.provider.base_url == "http://127.0.0.1:8089/v1"
    assert smollm2.price is not None
    assert not smollm2.price.free
    assert smollm2.budget.max_cost_nano == 20_000_000
    assert smollm2.capabilities.tools is False
    assert smollm2.capabilities.vision is False
    assert policy.routes["auto"].candidates == policy.routes["auto"].fallback == ("smollm2",)
    assert len(policy.warnings) == 11
    assert all(" is off: " in warning for warning in policy.warnings)


def test_each_key_brings_its_provider_and_nothing_else() -> None:
    for name in KEYS:
        policy = load(**{f"{name}_API_KEY": "sk-x"})
        assert len(policy.providers) == 2
        assert set(policy.routes["auto"].candidates) <= set(policy.models)


def test_with_every_key_every_model_is_there_and_priced() -> None:
    policy = load(**EVERYTHING)
    assert not policy.warnings
    assert len(policy.providers) == 12
    assert all(p.any_model for p in policy.providers.values() if p.name != "local")
    for model in policy.models.values():
        assert model.price is not None
        assert model.name == "smollm2" or model.budget.max_cost_nano == default_model_cap(model.price)
    chat = [model.name for model in policy.models.values() if not model.capabilities.embeddings]
    assert sorted(policy.routes["auto"].candidates) == sorted(chat)
    bill_on = {p.name for p in policy.providers.values() if p.bills_after_cancel}
    assert bill_on == {"bedrock", "google", "groq", "mistral"}


def test_the_comments_say_what_each_cap_comes_to() -> None:
    policy = load(**EVERYTHING)
    said = dict(re.findall(r"^  ([\w.-]+):.*# +task cap \$([\d.]+)$", TEXT, re.MULTILINE))
    caps = {
        name: usd_text(model.budget.max_cost_nano)
        for name, model in policy.models.items()
        if model.budget.max_cost_nano is not None and name != "smollm2"
    }
    assert said == caps


def test_the_table_of_hosts_is_the_built_in_one() -> None:
    assert tuple(yaml.safe_load(TEXT)["bills_after_cancel"]["hosts"]) == BILLS_AFTER_CANCEL_HOSTS


def test_the_schema_beside_the_policy_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), (
        "write it again: python -c 'import json; from app.stores.policy_model import json_schema; "
        "print(json.dumps(json_schema(), indent=2))' > policies/policy.schema.json"
    )
    assert TEXT.startswith("# yaml-language-server: $schema=./policy.schema.json\n")


@pytest.mark.parametrize("text", [TEXT, CONTRACT, TEXT + "x-anything: {goes: here}\n"])
def test_the_schema_takes_good_policies(text: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"version": 2},
        {"models": {"m": {"provider": "p", "tier": 12}}},
        {"models": {"m": {"provider": "p", "tools": "maybe"}}},
        {"models": {"m": {"provider": "p", "pricing": "cheap"}}},
        {"caps": {"task": {"max_cost_usd": -1}}},
        {"keys": [{"name": "k", "sha256": "short"}]},
    ],
)
def test_the_schema_refuses_bad_ones_but_takes_variables(change: dict[str, Any]) -> None:
    good = {"version": 1, "providers": {"p": {"base_url": "${URL}"}}, "keys": [{"name": "${N}", "sha256": "${H}"}]}
    jsonschema.validate({**good, "caps": {"task": {"max_cost_usd": "${CAP:-1}"}}}, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, **change}, json_schema())
