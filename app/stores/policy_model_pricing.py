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
    cache_write_1h_per_1k: Rate | None = Field(
        default=None, description="Input that is written to it to be kept for an hour."
    )
    reasoning_per_1k: Rate | None = Field(default=None, description="Thinking.")
    audio_input_per_1k: Rate | None = Field(default=None, description="Sound in the input.")
    audio_output_per_1k: Rate | None = Field(default=None, description="Sound in the answer.")
    image_output_per_1k: Rate | None = Field(default=None, description="Images in the answer.")


class TierSpec(RatesSpec):
    """Rates for the whole request if its input exceeds `above_tokens`. Cache rates that are left out are the ordinary
    ones."""

    above_tokens: Tokens = Field(description="Input tokens, cached ones included.")


ServerTool = Literal["web_search", "file_search", "code_execution", "image_generation", "maps", "advisor"]
"""`core/types.SERVER_TOOLS`."""


ServiceTier = Literal["priority", "flex", "fast", "ultrafast", "us", "fast-us"]
"""`core/types.SERVICE_TIERS`."""


class PricingSpec(RatesSpec):
    """What the model costs."""

    tiers: list[TierSpec] = Field(default_factory=list, description="Long-context rates.")
    tool_fees: dict[ServerTool, Budget] = Field(
        default_factory=dict,
        description=(
            "Dollars for one use of a tool that the provider runs itself; for `code_execution`, for one container, "
            "however often code runs in it. 0: it costs only tokens. Default: the catalogue's. Under a cost cap a tool "
            "without a fee is refused."
        ),
    )
    tool_uses: dict[ServerTool, Uses] = Field(
        default_factory=dict,
        description=(
            "For providers that report uses only at the end (Gemini, Chat): for how many uses of each tool a cap sets "
            "money aside. More uses can exceed the cap. Default: 10 searches (1 for Gemini before 3, which bills one), "
            "1 of any other tool."
        ),
    )
    service_tiers: dict[ServiceTier, Budget] = Field(
        default_factory=dict,
        description=(
            "By what factor another tier of the provider's service multiplies these rates. Under a cost cap a tier "
            "without a factor is refused."
        ),
    )


def _pricing_kind(value: Any) -> str:
    return "rates" if isinstance(value, dict | PricingSpec) else "free"


Pricing = Annotated[
    Annotated[PricingSpec, Tag("rates")] | Annotated[Literal["free"], Tag("free")], Discriminator(_pricing_kind)
]
