"""Providers that litellm translates for, as policies say them, and what is wrong with them."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from app.core.policy import Bridge, Policy
from app.stores.policy_diff import diff_policies
from app.stores.policy_model import json_schema
from app.stores.prices import load_bundled
from tests.stores.policy_texts import all_problems, build

MODELS = "models: {m: {provider: p, upstream_model: anthropic.claude-haiku-4-5-20251001-v1:0}}\n"
OPTIONS = "options: {aws_region_name: eu-west-1, aws_secret_access_key: '${SECRET}'}"
BEDROCK = f"dialect: litellm, litellm: {{provider: bedrock, {OPTIONS}}}"


def policy(provider: str) -> str:
    return f"version: 1\nproviders:\n  p: {{{provider}}}\n{MODELS}"


def built(provider: str, secret: str = "s3cret") -> Policy:
    jsonschema.validate(yaml.safe_load(policy(provider)), json_schema())
    return build(policy(provider), {"SECRET": secret})


def test_it_speaks_chat_and_knows_its_place_and_price() -> None:
    found = built(BEDROCK)
    provider = found.providers["p"]
    assert provider.bridge == Bridge("bedrock", {"aws_region_name": "eu-west-1", "aws_secret_access_key": "s3cret"})
    assert (provider.dialect, provider.base_url) == ("openai_chat", "")
    assert provider.speaking_with("anthropic") == "openai_chat"
    entry = load_bundled().find(provider, found.models["m"].upstream_model)
    assert entry is not None
    assert entry.price is not None
    assert entry.price.base.input == 1_000_000_000  # $1 a million


def test_what_goes_on_billing_is_known_by_litellms_names() -> None:
    assert built(BEDROCK).providers["p"].bills_after_cancel
    assert not built("dialect: litellm, litellm: {provider: vertex_ai}").providers["p"].bills_after_cancel
    whole = "dialect: litellm, litellm: {provider: cohere_chat, streams: false}"
    assert built(whole).providers["p"].bills_after_cancel
    assert not built(f"{BEDROCK}, bills_after_cancel: false").providers["p"].bills_after_cancel


def test_options_are_secret() -> None:
    before, after = built(BEDROCK), built(BEDROCK, "other")
    assert diff_policies(before, after) == ["provider p: bridge.options changed"]
    assert "s3cret" not in repr(before)


@pytest.mark.parametrize(
    ("provider", "problems"),
    [
        (
            "dialect: litellm",
            ["3:16: providers.p.dialect: needs a mapping `litellm`, with litellm's name for the provider"],
        ),
        (
            "base_url: 'http://h/v1', litellm: {provider: x}",
            ["3:32: providers.p.litellm: belongs to `dialect: litellm` only"],
        ),
        (
            "dialect: litellm, litellm: {provider: azure}, query: {api-version: x}",
            ["3:53: providers.p.query: litellm takes an `api_version` in its `options`"],
        ),
        ("headers: {}", ["3:3: providers.p.base_url: is required"]),
        (
            "dialect: litellm, litellm: {provider: x, options: {api_base: y}}",
            ["3:58: providers.p.litellm.options.api_base: is the gateway's to say"],
        ),
        (
            "dialect: litellm, litellm: {provider: x}, also: [gemini]",
            ["3:49: providers.p.also: what litellm translates for has one dialect"],
        ),
    ],
)
def test_each_mistake_has_its_line_and_words(provider: str, problems: list[str]) -> None:
    assert [str(problem).removeprefix("p.yaml:") for problem in all_problems(policy(provider), {})] == problems
