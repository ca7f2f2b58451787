"""The values routers share, and what a model's name tells."""

from __future__ import annotations

import pytest

from routers.base import Arm, family_of, reasons_by_default


@pytest.mark.parametrize("tier", [0, 10, -1])
def test_a_tier_off_the_scale_is_refused(tier: int) -> None:
    with pytest.raises(ValueError, match="tier of 'a' must be between 1 and 9"):
        Arm("a", tier)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("SmolLM2-135M-Instruct", "smollm"),
        ("deepseek-r1-distill-llama-70b", "deepseek"),
        ("anthropic/claude-sonnet-4-5", "claude"),
        ("models/gemini-2.5-pro", "gemini"),
        ("mixtral-8x7b-instruct-v0.1", "mixtral"),
        ("chatgpt-4o-latest", "gpt"),
        ("gpt-4o-2024-08-06", "gpt"),
        ("o3-mini", "o3"),
        ("Qwen/QwQ-32B", "qwen"),
        ("large-v1", ""),
        ("", ""),
    ],
)
def test_family_is_the_model_line(model: str, family: str) -> None:
    assert family_of(model) == family


@pytest.mark.parametrize(
    "model", ["o1", "o3-mini", "openai/o4-mini-high", "deepseek-reasoner", "DeepSeek-R1", "gpt-5-mini"]
)
def test_reasoning_models_are_known_by_name(model: str) -> None:
    assert reasons_by_default(model)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-chat-latest", "claude-3-5-haiku", "grok-4-fast-non-reasoning", ""])
def test_other_models_are_not(model: str) -> None:
    assert not reasons_by_default(model)
