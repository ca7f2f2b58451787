"""Routes in the policy file: how they choose, explore, and let tasks land."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from app.core.policy import ROUTERS, Objective
from app.stores.policy_types import Budget, ModelName, NotBool, OnCut, Seconds, Share, Spec, Tokens, known_keys
from routers.tasks import TaskType


class RetriesSpec(Spec):
    """How often one candidate is asked again, before the first event."""

    attempts: Annotated[int, Field(ge=0, le=10), NotBool] = Field(default=1, description="Beyond the first one.")
    base_secs: Seconds = Field(default=0.25, description="The longest pause before the second; it doubles each time.")
    max_wait_secs: Seconds = Field(
        default=2.0,
        description="The longest pause; if a provider wants a longer one, the next candidate is asked.",
    )


def _pin_kind(value: Any) -> str:
    return "task_types" if isinstance(value, dict) else "model"


PinByTask = Annotated[dict[str, ModelName], Field(min_length=1, json_schema_extra=known_keys(TaskType))]
Pin = Annotated[Annotated[ModelName, Tag("model")] | Annotated[PinByTask, Tag("task_types")], Discriminator(_pin_kind)]
Split = Annotated[dict[str, Share], Field(min_length=1, json_schema_extra=known_keys(ROUTERS))]


class BaselineSpec(Spec):
    """The model that a route keeps to until the learned router is sure, from outcomes of this kind of work and of those
    like it, that its objective prefers another. Beside `explore`, or the others are hardly ever tried."""

    model: ModelName = Field(description="One of the candidates: what you use today.")
    sure: Annotated[float, Field(ge=0.5, lt=1), NotBool] = Field(
        default=0.95, description="The probability with which another must be better."
    )


def _named(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise PydanticCustomError("baseline", "must be one of the candidates, or a mapping with a `model`")
    return {"model": value} if isinstance(value, str) else value


BaselineOf = Annotated[BaselineSpec, BeforeValidator(_named, json_schema_input_type=ModelName | BaselineSpec)]


class ExploreSpec(Spec):
    """Calls whose model Thompson sampling chooses, so that the learned router learns about every candidate. Never where
    a model is pinned, in a tool loop, near a cap, where only fallbacks are left, or where an SDK sends a request
    again."""

    share: Annotated[float, Field(gt=0, le=0.5), NotBool] = Field(
        default=0.05, description="The share of tasks (of calls, where there are none) that explore."
    )
    max_usd_per_day: Budget = Field(
        description=(
            "What these calls may cost in a day (UTC), all workers and gateways together. Beyond it nothing is "
            "explored."
        )
    )
    never_for: list[str] = Field(
        default_factory=list,
        description="Task types of which nothing is explored: those where a failure is dear.",
        json_schema_extra={"items": {"type": "string", "enum": [task.value for task in TaskType]}},
    )


class LandingSpec(Spec):
    """What changes for a task near its cap."""

    at: Annotated[float, Field(gt=0, lt=1), NotBool] = Field(
        default=0.8,
        description="The share of any of its limits (dollars, calls, tokens, time) from which a task lands.",
    )
    step_share: Annotated[float, Field(gt=0, le=1), NotBool] = Field(
        default=0.5, description="The share of what is left that one call may spend."
    )
    min_output_tokens: Tokens = Field(
        default=1024, description="A call may always write this many tokens, as far as the cap itself allows."
    )
    cheaper: bool = Field(
        default=True, description="Ask the cheapest adequate candidate, whatever the objective of the route."
    )
    adequacy: Share | None = Field(
        default=None, description="The P(success) that is good enough while landing. Default: the route's."
    )
    switch_in_tool_loop: bool = Field(
        default=False, description="The model may change while the client is answering its tool calls."
    )
    note: bool = Field(default=False, description="Tell the model what is left, at the end of the request.")


class RouteSpec(Spec):
    """A name that clients put into `model`."""

    candidates: list[ModelName] = Field(min_length=1, description="The models to choose from.")
    objective: Objective = Field(
        default="cheapest_adequate",
        description="cheapest_adequate: the lowest expected cost with P(success) >= adequacy. quality: the highest "
        "P(success) within max_expected_cost_usd. utility: the highest P(success) * success_value_usd - expected cost.",
    )
    adequacy: Share = Field(default=0.8, description="The P(success) from which a candidate is good enough.")
    max_expected_cost_usd: Budget | None = Field(
        default=None, description="For objective quality: the most that an answer may be expected to cost."
    )
    success_value_usd: Budget | None = Field(
        default=None, description="For objective utility: what an answer that succeeds is worth."
    )
    min_confidence: Share = Field(
        default=0.7,
        description=(
            "If the learned router is less sure of its choice, the heuristic decides; of a candidate of which the "
            "learned router is so sure, it believes no more than that."
        ),
    )
    pin: Pin | None = Field(
        default=None,
        description=(
            "A model (or one for each task type) that is asked whatever the scores; after it only `fallback` is asked."
        ),
    )
    router: Literal["learned", "heuristic"] | None = Field(
        default=None, description="Whose scores decide. Default: learned, where its weights are there."
    )
    split: Split | None = Field(
        default=None, description="An A/B test: the share of tasks that each router decides, together 1."
    )
    explore: ExploreSpec | None = Field(default=None, description="Trying other candidates, to learn. Default: no.")
    baseline: BaselineOf | None = Field(
        default=None, description="The model to keep to until another is surely better. Default: none."
    )
    fallback: list[ModelName] = Field(default_factory=list, description="Asked in this order when the choice fails.")
    switch_in_tool_loop: bool = Field(
        default=False, description="The model may change while the client is answering its tool calls."
    )
    retries: RetriesSpec = Field(default=RetriesSpec(), description="Tries before the next candidate is asked.")
    on_cut: OnCut | None = Field(default=None, description="Default: the policy's.")
    landing: LandingSpec | None = Field(default=None, description="For this route's calls, in place of the policy's.")
