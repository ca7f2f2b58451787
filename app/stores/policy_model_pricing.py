"""What a model costs, as the policy file says it: dollars per 1,000 tokens, fees of tools, factors of service tiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from app.stores.policy_types import Budget, Rate, Spec, Tokens, Uses


class RatesSpec(Spec):
    """Dollars per 1,000 tokens; a cache rate left out is not priced; other rates left out are those of plain tokens."""

    input_per_1k: Rate = Field(description="Input.")
    output_per_1k: Rate = Field(description="Output.")
    cache_read_per_1k: Rate | None = Field(default=None, description="Input that is read from the provider's cache.")
    cache_write_per_1k: Rate | None = Field(default=None, description="Input that is written to it.")
    cache_write_1h_per_1k: Rate | None = Field(default=None, description="Input that is written to it for an hour.")
    reasoning_per_1k: Rate | None = Field(default=None, description="Thinking.")
    audio_input_per_1k: Rate | None = Field(default=None, description="Sound that is heard.")
    audio_output_per_1k: Rate | None = Field(default=None, description="Sound that is spoken.")
    image_output_per_1k: Rate | None = Field(default=None, description="Images that are made.")


class TierSpec(RatesSpec):
    """Rates for the whole request once its input passes `above_tokens`; cache rates left out are the base's."""

    above_tokens: Tokens = Field(description="Of input, cached tokens included.")


ServerTool = Literal["web_search", "file_search", "code_execution", "image_generation", "maps", "advisor"]
"""`core/types.SERVER_TOOLS`."""


ServiceTier = Literal["priority", "flex", "fast", "ultrafast", "us", "fast-us"]
"""`core/types.SERVICE_TIERS`."""


class PricingSpec(RatesSpec):
    """What the model costs."""

    tiers: list[TierSpec] = Field(default_factory=list, description="Long-context rates.")
    tool_fees: dict[ServerTool, Budget] = Field(
        default_factory=dict,
        description="Dollars for one use of a tool that the provider runs itself; of `code_execution`, for one "
        "container, however often code runs in it. Default: the catalogue's. "
        "Under a cost cap a tool without a fee is refused; 0: it costs nothing but tokens.",
    )
    tool_uses: dict[ServerTool, Uses] = Field(
        default_factory=dict,
        description="How many uses of such a tool a call is taken to make at most, where its provider says only at the "
        "end (Gemini, Chat): so many are set aside under a cap, and more can pass it. Default: 10 searches (1 of "
        "Gemini before 3, which bills one), 1 of all else.",
    )
    service_tiers: dict[ServiceTier, Budget] = Field(
        default_factory=dict,
        description="By how much another tier of the provider's service multiplies these rates. "
        "Under a cost cap a tier without a factor is refused.",
    )


def _pricing_kind(value: Any) -> str:
    return "rates" if isinstance(value, dict | PricingSpec) else "free"


Pricing = Annotated[
    Annotated[PricingSpec, Tag("rates")] | Annotated[Literal["free"], Tag("free")], Discriminator(_pricing_kind)
]
