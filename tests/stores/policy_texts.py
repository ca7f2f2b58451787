"""Policies that the tests of `policy_*.py` share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.policy import Policy
from app.stores.policy_file import build_policy
from app.stores.policy_yaml import PolicyError, Problem, Source
from app.stores.prices import Catalogue

DEFAULT_POLICY = Path(__file__).parents[2] / "policies" / "default.yaml"

CONTRACT = """\
version: 1
providers:
  a: {dialect: openai_chat, base_url: "http://127.0.0.1:9001/v1", api_key: "${A_KEY:-none}"}
  b: {dialect: openai_chat, base_url: "http://127.0.0.1:9002/v1"}
models:
  small:   {provider: a, upstream_model: small-v1, tier: 1, pricing: {input_per_1k: 0.0001, output_per_1k: 0.0004}}
  small-b: {provider: b, upstream_model: small-v1, tier: 1, pricing: {input_per_1k: 0.0002, output_per_1k: 0.0006}}
  large:   {provider: b, upstream_model: large-v1, tier: 4, pricing: {input_per_1k: 0.015, output_per_1k: 0.075},
            budgets: {max_cost_usd: 0.30, hard_timeout_secs: 600}}
routes:
  auto: {candidates: [small, small-b, large], adequacy: 0.8, min_confidence: 0.7, fallback: [small-b, large]}
caps:
  task: {max_cost_usd: 1.00}
keys: []          # none: open, on loopback only; serving elsewhere without keys is refused
"""

CATALOGUE = Catalogue(
    json.dumps(
        {
            "gpt-4o-mini": {
                "mode": "chat",
                "input_cost_per_token": 1.5e-7,
                "output_cost_per_token": 6e-7,
                "cache_read_input_token_cost": 7.5e-8,
                "max_input_tokens": 128000,
                "max_output_tokens": 16384,
                "supports_function_calling": True,
                "supports_vision": True,
                "supports_reasoning": True,
            },
            "groq/llama": {"mode": "chat", "input_cost_per_token": 1e-7, "output_cost_per_token": 1e-7},
        }
    ).encode()
)

BASE = """\
version: 1
providers:
  p: {base_url: "http://p.test/v1"}
models:
  m: {provider: p, pricing: {input_per_1k: 0.001, output_per_1k: 0.002}}
"""


def build(text: str, env: Mapping[str, str] | None = None, catalogue: Catalogue = CATALOGUE) -> Policy:
    """The policy of one file's text."""
    return build_policy([Source("p.yaml", text.encode())], source="p.yaml", env=env or {}, catalogue=catalogue)


def all_problems(text: str, env: Mapping[str, str] | None = None) -> list[Problem]:
    """What is wrong with one file's text; empty where nothing is."""
    try:
        build(text, env)
    except PolicyError as error:
        return list(error.problems)
    return []


def provider(**fields: Any) -> str:
    """A policy with one provider that has these fields, and `m`, a model of it that the catalogue prices."""
    given = json.dumps({"base_url": "http://p.test/v1", **fields})
    return f"version: 1\nproviders: {{p: {given}}}\nmodels: {{m: {{provider: p, upstream_model: gpt-4o-mini}}}}\n"


def model(**fields: Any) -> str:
    """A policy with one model, `m`, that has these fields."""
    given = json.dumps({"provider": "p", **fields})
    return f'version: 1\nproviders: {{p: {{base_url: "http://p.test/v1"}}}}\nmodels: {{m: {given}}}\n'
