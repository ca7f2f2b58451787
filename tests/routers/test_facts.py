"""What a model's name tells: sizes, ages, kinds, and that any string is survived."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.base import MAX_TIER, MIN_TIER, UNPRICED_TIER
from routers.facts import GUESSED_TIERS, arm_of_name, facts_of, spelled, tier_of
from routers.facts_ratings import RATINGS
from routers.facts_table import KNOWN


@pytest.mark.parametrize(
    ("name", "size", "active"),
    [
        ("meta-llama_Meta-Llama-3-70B-Instruct", 70, 70),
        ("Meta-Llama-3_1-8B", 8, 8),
        ("Qwen2-1.5B-Instruct", 1.5, 1.5),
        ("Qwen3-Coder 480B/A35B Instruct", 480, 35),
        ("smollm2-360m-instruct", 0.36, 0.36),
        ("deepseek-ai_deepseek-coder-6.7b-instruct", 6.7, 6.7),
        ("Phi-3-mini-4k-instruct", 3.8, 3.8),
        ("microsoft/phi-1_5", 1.3, 1.3),
        ("openchat/openchat_3.5", 7, 7),
        ("intern-s1", 241, 28),
        ("intern-s1-mini", 8, 8),
        ("qwen/qwen3-coder", 480, 35),
        ("qwen3-coder-30b-a3b-instruct", 30, 3.3),
        ("qwen3-coder-next", 80, 3),
        ("z-ai/glm-4.7-flash", 30, 3),
        ("glm-4.5v", 106, 12),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", 400, 17),
        ("us.meta.llama4-scout-17b-instruct-v1:0", 109, 17),
        ("DeepSeek-R1-0528-Qwen3-8B", 8, 8),
        ("gpt-4o-2024-08-06-FC", None, None),
        ("chat-128k-2024", None, None),
    ],
)
def test_the_size_is_what_the_name_or_memory_says(name: str, size: float | None, active: float | None) -> None:
    facts = facts_of(name)
    assert (facts.size_b, facts.active_b) == (size, active)


def test_experts_share_layers_and_only_some_are_active() -> None:
    facts = facts_of("mixtral-8x7b-instruct-v0.1")
    assert facts.size_b == pytest.approx(46.7, rel=0.02)
    assert facts.active_b == pytest.approx(12.9, rel=0.02)
    assert facts.effective_b == pytest.approx(24.5, rel=0.03)


@pytest.mark.parametrize(
    ("name", "family", "released"),
    [
        ("Claude 4.5 Opus medium (20251101)", "claude", 2025.9),
        ("claude-3-5-sonnet-20240620-FC", "claude", 2024.47),
        ("20240620_sweagent_claude3.5sonnet", "claude", 2024.47),
        ("20240623_moatless_claude35sonnet", "claude", 2024.47),
        ("google/gemini-2.5-pro", "gemini", 2025.3),
        ("gpt-4-1106-preview", "gpt", 2023.85),
        ("GPT-5 (2025-08-07) (medium reasoning)", "gpt", 2025.62),
        ("gpt-4o-2024-05-13", "gpt", 2024.37),
        ("mistralai/mistral-large-2512", "mistral", 2025.95),
        ("Devstral small (2512)", "devstral", 2025.95),
        ("gpt-6-mini", "gpt", 2026.0),
        ("deepseek-v4-pro", "deepseek", 2026.0),
        ("claude-sonnet-5", "claude", 2026.0),
        ("qwen3.5-35b-a3b", "qwen", 2026.0),
        ("mistral-small-latest", "mistral", 2026.0),
        ("accounts/fireworks/models/llama-v3p1-70b-instruct", "llama", 2024.55),
        ("o3-mini", "gpt", 2025.08),
        ("deepseek-coder-6.7b-instruct", "deepseek", 2023.85),
        ("kimi-k2:1t", "kimi", 2025.55),
        ("accounts/fireworks/models/qwen3-1p7b", "qwen", 2025.35),
    ],
)
def test_the_line_and_the_age(name: str, family: str, released: float) -> None:
    facts = facts_of(name)
    assert facts.family == family
    assert facts.released == pytest.approx(released, abs=0.06)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("z-ai/glm-4.7-flash", "z-ai/glm-4.7"),
        ("glm-4.7-flashx", "glm-4.7"),
        ("grok-4", "grok-5"),
        ("grok-5-fast", "grok-5"),
        ("claude-opus-4-6", "claude-opus-4-7"),
        ("qwen3-coder-next", "qwen3-coder"),
        ("phi-4-mini-instruct", "microsoft/phi-4"),
        ("amazon.nova-2-lite-v1:0", "amazon.nova-2-pro-v1:0"),
        ("ministral-8b-latest", "mistral-large-latest"),
        ("mistral-small-3.2-24b-instruct-2506", "mistral-medium-latest"),
        ("mistral-medium-2508", "mistral-large-2603"),
        ("gemini-3-flash-lite", "gemini-3-flash-preview"),
        ("deepseek-ai/DeepSeek-V3.2", "deepseek-v4-pro"),
        ("meta-llama/llama-3.3-70b-instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"),
        ("nvidia/nemotron-3-nano-30b-a3b", "nvidia/nemotron-3-ultra"),
    ],
)
def test_nothing_small_is_taken_for_more_than_its_large_sibling(small: str, large: str) -> None:
    one, other = facts_of(small), facts_of(large)
    assert tier_of(one) <= tier_of(other)
    assert (one.effective_b or 0.0) <= (other.effective_b or 1e9)
    assert one.rating is None or other.rating is None or one.rating < other.rating


def test_the_dearest_of_a_line_has_its_own_price() -> None:
    assert (facts_of("gpt-5.2-pro").blended_price or 0.0) > 5 * (facts_of("gpt-5.2").blended_price or 0.0)


@pytest.mark.parametrize("name", ["llama3.1:8b", "ollama/llama3:70b", "mixtral:8x7b", "mistral:7b"])
def test_a_tag_of_its_size_alone_names_no_base_model(name: str) -> None:
    assert facts_of(name).tuned
    assert not facts_of(name + "-base").tuned


def test_the_kinds_of_a_model() -> None:
    assert facts_of("o3-mini").reasoning
    assert facts_of("Gemini 2.5 Pro (2025-05-06)").reasoning
    assert facts_of("GPT-5.1 (2025-11-13) (medium reasoning)").reasoning
    assert not facts_of("gpt-4o-mini").reasoning
    assert not facts_of("Llama-2-70b-hf").tuned
    assert facts_of("meta-llama/Llama-2-70b-chat-hf").tuned
    assert not facts_of("Mistral-7B-v0.1").tuned
    assert facts_of("Mistral-7B-Instruct-v0.1").tuned
    assert facts_of("claude-3-haiku").tuned
    assert facts_of("Qwen2.5-Coder 32B Instruct").code
    assert facts_of("mistral-large-2407-FC-Any").tools


def test_a_distillation_is_not_priced_as_its_teacher() -> None:
    teacher, student = facts_of("deepseek-r1"), facts_of("deepseek-r1-0528-qwen3-8b")
    assert student.size_b == 8
    assert (student.blended_price or 9) < (teacher.blended_price or 0) / 3


def test_new_weights_without_a_word_are_tuned() -> None:
    assert facts_of("qwen3.5-35b-a3b").tuned
    assert not facts_of("Qwen1.5-110B").tuned


def test_what_a_name_does_not_tell_is_none() -> None:
    facts = facts_of("my-finetune")
    assert (facts.family, facts.size_b, facts.released, facts.blended_price) == ("", None, None, None)


def test_tiers_follow_size_price_and_age() -> None:
    tiers = [arm_of_name(name).tier for name in ("smollm2-135m", "qwen2.5-7b", "llama-3.1-70b-instruct", "gpt-4o")]
    assert tiers == sorted(tiers)
    assert tiers[0] == MIN_TIER
    assert tiers[-1] == 4
    assert arm_of_name("who-knows").tier == UNPRICED_TIER


def test_of_a_name_that_tells_nothing_the_price_tells_the_tier() -> None:
    tiers = [arm_of_name("model-a", price=(each, 3 * each)).tier for each in (0.1, 1.0, 3.0, 15.0)]
    assert tiers == sorted(set(tiers))
    assert arm_of_name("qwen2.5-7b", price=(50.0, 50.0)).tier == arm_of_name("qwen2.5-7b").tier


def test_an_arm_of_a_name_has_its_prices() -> None:
    arm = arm_of_name("gpt-4o-2024-08-06")
    assert (arm.input_rate, arm.output_rate) == (2_500_000_000, 10_000_000_000)
    assert arm_of_name("gpt-4o", price=(1.0, 2.0)).output_rate == 2_000_000_000
    assert arm_of_name("who-knows").input_rate is None
    assert arm.model == arm.name


@given(st.text(max_size=300) | st.from_regex(r"[a-z]{2,8}[-_ ./]?[0-9.]{1,6}[xb]?[0-9]{0,4}b?", fullmatch=True))
def test_any_string_is_a_name(name: str) -> None:
    facts = facts_of(name)
    assert facts.size_b is None or 0 < facts.size_b < 1e6
    assert facts.active_b is None or 0 < facts.active_b <= (facts.size_b or 0)
    assert facts.released is None or 2020 <= facts.released < 2031
    assert MIN_TIER <= tier_of(facts) <= GUESSED_TIERS <= MAX_TIER
    assert arm_of_name(name).name == name


@given(st.text(max_size=80))
def test_spelling_is_stable(name: str) -> None:
    assert spelled(spelled(name)) == spelled(name)


@pytest.mark.parametrize(
    ("name", "tuned"),
    [
        ("EleutherAI/pythia-12b", False),
        ("bigcode/starcoder2-15b", False),
        ("bigcode/starcoder2-15b-instruct-v0.1", True),
        ("deepcogito/cogito-v1-preview-llama-8B", True),
        ("open-mixtral-8x7b", True),
        ("mistral/open-mistral-7b", True),
        ("mistralai_open-mistral-7b", True),
        ("llama3.1-8b", True),
        ("snowflake/llama3-70b", True),
        ("Llama-3.1-8B", False),
        ("accounts/fireworks/models/llama-v3-8b", False),
        ("accounts/fireworks/models/llama-v3-8b-instruct-hf", True),
        ("Mistral-7B-v0.2-hf", False),
    ],
)
def test_a_base_model_is_known_by_its_name(name: str, tuned: bool) -> None:
    assert facts_of(name).tuned is tuned


def test_the_table_is_plausible() -> None:
    for known in KNOWN:
        assert 2022 < known.released <= 2026
        assert known.size is None or known.size[0] >= known.size[1] > 0
        assert known.price is None or 0 < known.price[0] <= known.price[1] * 1.01


@pytest.mark.parametrize(
    ("name", "rating"),
    [
        ("gpt-4o-2024-08-06-FC", 1280),
        ("deepseek/deepseek-chat-v3-0324", 1390),
        ("DeepSeek-R1-0528-Qwen3-8B", None),
        ("wxai-granite-3-2b-instruct", 1075),
        ("gpt-4o-mini", 1270),
        ("claude-3-5-sonnet-20241022", 1310),
        ("20240620_sweagent_claude3.5sonnet", 1280),
        ("meta-llama/Llama-3.1-8B-Instruct", 1175),
        ("Llama-3.3-70B-Instruct", 1257),
        ("Meta-Llama-3-8B", None),  # a base model has never been compared
        ("DeepSeek-R1-Distill-Qwen-7B", None),  # nor has what bears the name of its teacher
        ("qwen2.5-7b-instruct", None),
        ("my-own-model", None),
    ],
)
def test_ratings_belong_to_the_models_that_were_rated(name: str, rating: float | None) -> None:
    assert facts_of(name).rating == rating


def test_ratings_are_on_one_scale() -> None:
    assert all(800 <= points <= 1500 for _, points in RATINGS)
    assert len({pattern for pattern, _ in RATINGS}) == len(RATINGS)
