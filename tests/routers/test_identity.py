"""One model under many names, and many models under names that look alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.eval_learned import load_weights
from routers.identity import canonical
from routers.learned import LearnedRouter

ONE_MODEL = [
    ["gpt-4o", "openai/gpt-4o", "openai_gpt-4o-2024-05-13", "azure-gpt-4o", "gpt-4o-2024-08-06 (FC)"],
    ["gpt-5", "openai/gpt-5", "gpt-5-2025-08-07", "GPT-5 (2025-08-07) (medium reasoning)"],
    ["gpt-3.5-turbo", "gpt-3.5-turbo-0125", "openai/gpt-3.5-turbo", "azure/gpt-35-turbo"],
    ["gpt-4", "gpt-4-0613"],
    ["gpt-5-nano", "openai/gpt-5-nano-medium", "GPT-5 nano (2025-08-07) (medium reasoning)"],
    ["claude-3-5-sonnet-20240620", "aws-claude-3-5-sonnet-v1", "anthropic_claude-3-5-sonnet-20240620"],
    ["o3", "openai/o3", "o3 (2025-04-16)"],
    ["claude-3-opus-20240229", "claude-3-opus-20240229-FC", "anthropic/claude-3-opus"],
    [
        "claude-opus-4-5",
        "claude-opus-4-5-20251101",
        "us.anthropic.claude-opus-4-5-20251101-v1:0",
        "anthropic/claude-opus-4.5",
        "Claude 4.5 Opus medium (20251101)",
    ],
    ["claude-sonnet-4@20250514", "anthropic/claude-sonnet-4", "Claude 4 Sonnet (20250514)"],
    ["gemini-2.5-pro", "google/gemini-2.5-pro", "gemini-2.5-pro-preview-05-06", "Gemini 2.5 Pro (2025-05-06)"],
    ["deepseek-coder-v2", "deepseek-coder-v2:236b", "deepseek-ai/DeepSeek-Coder-V2-Instruct", "deepseek-v2-coder-0724"],
    ["deepseek/deepseek-chat-v3-0324", "deepseek-ai/DeepSeek-V3-0324"],
    ["mistralai/mixtral-8x7b-instruct", "open-mixtral-8x7b", "Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-32768"],
    ["mixtral-8x7b-instruct", "wxai-mixtral-8x7b-instruct-v01", "mistralai/mixtral-8x7b-chat"],
    ["mistral-large-2407", "Mistral-Large-2", "mistralai/mistral-large-2411"],
    ["mistral-large-2512", "mistralai/Mistral-Large-3"],
    ["Meta-Llama-3-70B-Instruct", "meta-llama_Meta-Llama-3-70B-Instruct", "llama3:70b"],
    [
        "Meta-Llama-3.1-8B-Instruct",
        "llama-3.1-8b-instant",
        "llama3.1:8b",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "meta.llama3-1-8b-instruct-v1:0",
        "accounts/fireworks/models/llama-v3p1-8b-instruct",
        "@cf/meta/llama-3.1-8b-instruct-fp8",
        "wxai-llama-3-1-8b-instruct",
        "llama3.1-8b",
        "llama3.1:8b-instruct-q4_K_M",
        "llama3.1:8b-instruct-q8_0",
        "Meta-Llama-3.1-8B-Instruct-FP8-dynamic",
        "Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
        "unsloth/Llama-3.1-8B-Instruct-bnb-4bit",
    ],
    ["llama3-70b-8192", "accounts/fireworks/models/llama-v3-70b-instruct-hf", "meta-llama/Llama-3-70B-Instruct"],
    ["gpt-oss-120b", "openai.gpt-oss-120b-1:0", "gpt-oss:120b-cloud", "openai/gpt-oss-120b:nitro"],
    ["jamba-1.5-large", "ai21.jamba-1-5-large-v1:0"],
    ["deepseek-coder-6.7b-instruct", "deepseek-ai_deepseek-coder-6.7b-instruct"],
    ["llama-4-maverick", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "Llama 4 Maverick Instruct"],
    ["qwen/qwen3-coder", "Qwen3-Coder 480B/A35B Instruct", "Qwen/Qwen3-Coder-480B-A35B-Instruct"],
    ["moonshotai/kimi-k2", "Kimi K2 Instruct", "kimi-k2:1t-cloud"],
    ["zai-org/GLM-4.6", "z-ai/glm-4.6", "GLM-4.6 (T=1)"],
    ["c4ai-command-r-v01", "cohere/command-r", "command-r:35b"],
    ["cohere/command-r-plus", "command-r-plus:104b"],
    ["gemma2:9b", "google/gemma-2-9b-it"],
]
TWO_MODELS = [
    ("openai/gpt-4o", "openai/o1"),
    ("gpt-4-1106-preview", "gpt-4-0125-preview"),
    ("gpt-4", "gpt-4-turbo"),
    ("gpt-4o", "gpt-4o-mini"),
    ("o1", "o1-preview"),
    ("openai/o1-2024-12-17", "o1-preview-2024-09-12"),
    ("gpt-3.5-turbo", "gpt-3.5-turbo-instruct"),
    ("gpt-5", "gpt-5-mini"),
    ("gpt-5.1-codex", "gpt-5.1-codex-max"),
    ("gpt-4o", "gpt-4o-audio-preview"),
    ("gpt-4o", "openai/gpt-4o:online"),
    ("gpt-4o", "ft:gpt-4o-2024-08-06:acme::abc123"),
    ("claude-opus-4", "anthropic/claude-opus-4:thinking"),
    ("llama-3.3-70b-instruct", "deepseek-r1-distill-llama-70b"),
    ("llama3.1:70b", "llama3.1:70b-instruct-q2_K"),
    ("gpt-4.1", "gpt-4-1106-preview"),
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022"),
    ("claude-sonnet-4", "claude-sonnet-4.5"),
    ("mistral-large-2407", "mistral-large-2512"),
    ("mistral-large-2402", "mistral-large-2407"),
    ("mistral-medium-2312", "mistral-medium-2505"),
    ("deepseek-v3", "deepseek-v3-0324"),
    ("deepseek-coder-v2", "deepseek-coder-v2-lite"),
    ("deepseek-coder-v2", "deepseek-coder-v2:16b"),
    ("qwen3-235b-a22b", "qwen3-235b-a22b-2507"),
    ("qwen2.5-7b-instruct", "qwen2.5-coder-7b-instruct"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
    ("gemma-2-2b-it", "gemma-2-27b-it"),
    ("Meta-Llama-3-70B", "Meta-Llama-3-70B-Instruct"),
    ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct"),
    ("phi-3-mini", "phi-3-medium"),
    ("gpt-5 (high reasoning)", "gpt-5"),
    ("模型-a", "模型-b"),
    ("模型", "маленькая"),
    ("auto", "free"),
]


@pytest.mark.parametrize("names", ONE_MODEL, ids=lambda names: str(names[0]))
def test_the_names_of_one_model_are_one(names: list[str]) -> None:
    assert {canonical(name) for name in names} == {canonical(names[0])}


@pytest.mark.parametrize(("one", "other"), TWO_MODELS)
def test_models_that_differ_have_names_that_differ(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "name",
    ["openai/gpt-4o", "openai/gpt-5", "claude-opus-4-5", "gpt-3.5-turbo", "zai-org/GLM-4.6", "moonshotai/kimi-k2"],
)
def test_the_shipped_weights_know_a_model_by_the_name_that_it_is_called_by(name: str) -> None:
    assert LearnedRouter(load_weights()).ability_weights.known_at(name) is not None


@given(st.text(max_size=300) | st.from_regex(r"[a-z]{1,8}([-_ ./:@]?[0-9a-z.]{1,6}){1,6}", fullmatch=True))
def test_any_string_has_one(name: str) -> None:
    assert canonical(name) or not name.strip("/")
