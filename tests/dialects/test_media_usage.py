"""Sound and pictures in usage, and in requests, as each dialect tells them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.core.money import Usage
from app.dialects.gemini.usage import UsageShape as GeminiUsage
from app.dialects.gemini.usage import usage_of as gemini_usage
from app.dialects.openai_chat.decode import decode_event
from app.dialects.registry import CHAT, GEMINI, RESPONSES
from app.stores.prices import Catalogue, load_bundled
from tests.dialects.pairs import parsed

SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}


def test_chats_details() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 60,
        "total_tokens": 160,
        "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 30, "image_tokens": 7},
    }
    event = decode_event(json.dumps({"choices": [], "usage": usage}).encode())
    assert event.usage == Usage(100, 60, 10, reasoning=5, audio_input=40, audio_output=30, image_output=7)


def test_geminis_details_leave_out_the_sound_that_was_cached() -> None:
    shape = GeminiUsage(
        prompt_token_count=100, cached_content_token_count=30, candidates_token_count=50, total_token_count=150
    )
    plain = gemini_usage(shape)
    assert plain == Usage(100, 50, 30)
    detailed: Any = {
        "promptTokenCount": 100, "cachedContentTokenCount": 30, "candidatesTokenCount": 50, "totalTokenCount": 150,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 60}, {"modality": "AUDIO", "tokenCount": 40}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 25}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 45}, {"modality": "TEXT"}],
    }  # fmt: skip
    told = gemini_usage(msgspec.json.decode(json.dumps(detailed), type=GeminiUsage))
    assert told == Usage(100, 50, 30, audio_input=15, image_output=45)


@pytest.mark.parametrize(
    ("name", "body", "hears", "speaks"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [SOUND]}]}, True, False),
        (CHAT, {"messages": [{"role": "user", "content": "Sing"}], "modalities": ["text", "audio"]}, False, True),
        (CHAT, {"messages": [{"role": "user", "content": "Draw"}], "modalities": ["image", "text"]}, False, True),
        (CHAT, {"messages": [{"role": "user", "content": "Hi"}], "modalities": ["text"]}, False, False),
        (RESPONSES, {"input": [{"role": "user", "content": [SOUND]}]}, True, False),
        (GEMINI, {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "UA=="}}]}]}, True, False),
        (GEMINI, {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "UA=="}}]}]}, False, False),
        (
            GEMINI,
            {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseModalities": ["Image"]}},
            False,
            True,
        ),
    ],
)
def test_requests_with_sound_and_for_pictures_are_known(
    name: str, body: dict[str, Any], hears: bool, speaks: bool
) -> None:
    prompt = parsed(name, body if name == GEMINI else {"model": "m", **body}).prompt
    assert (prompt.hears, prompt.speaks) == (hears, speaks)


def test_the_catalogue_knows_the_rates() -> None:
    entry = load_bundled().entry("gpt-audio")
    assert entry is not None
    assert entry.price is not None
    assert (entry.price.base.input, entry.price.base.output) == (2_500_000_000, 10_000_000_000)
    assert (entry.price.base.audio_input, entry.price.base.audio_output) == (32_000_000_000, 64_000_000_000)
    row = {"x": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "output_cost_per_image_token": 3e-5}}
    made = Catalogue(json.dumps(row).encode()).entry("x")
    assert made is not None
    assert made.price is not None
    assert (made.price.base.image_output, made.price.base.audio_output) == (30_000_000_000, None)
