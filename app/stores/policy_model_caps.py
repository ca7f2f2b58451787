"""The policy file's caps, and who they bind: tasks, keys and teams."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.stores.policy_types import Cap, Moment, Name, NotBool, Parallel, Sha256, Spec


class CapSpec(Spec):
    """One cap."""

    max_cost_usd: Cap = Field(description="Dollars.")


class TaskCapSpec(Spec):
    """Caps of each task, and of all below it. Calls are what is asked of providers, a retry included."""

    max_cost_usd: Cap | None = Field(default=None, description="Dollars for all its calls together.")
    max_calls: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="How often providers are asked."
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="Input and output of all calls: the guard for models that cost nothing."
    )
    max_seconds: Annotated[float, Field(gt=0, le=10**9), NotBool] | None = Field(
        default=None, description="By the wall clock, from the task's first call."
    )
    max_repeats: Annotated[int, Field(ge=1), NotBool] | None = Field(
        default=None, description="How often the same request (its last turns) is served. Default: always."
    )
    max_parallel_requests: Parallel | None = Field(
        default=None, description="Requests at a time. A further one waits for its turn, then gets a 429."
    )
    idle_days: Annotated[float, Field(ge=1, le=3650), NotBool] = Field(
        default=30.0, description="A task without calls for this long is forgotten; its name is free again."
    )


class RateSpec(Spec):
    """How much may begin in a minute; calls under way go on. Give at least one of the two."""

    max_calls: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None, description="How often providers are asked, retries included."
    )
    max_tokens: Annotated[int, Field(ge=1, le=10**12), NotBool] | None = Field(
        default=None,
        description=(
            "Input is counted when a call begins (an estimate), output when it ends. Once this many are counted, no "
            "call begins."
        ),
    )

    @model_validator(mode="after")
    def _says_something(self) -> RateSpec:
        if self.max_calls is None and self.max_tokens is None:
            raise PydanticCustomError("rate", "needs max_calls or max_tokens")
        return self


class WindowsSpec(Spec):
    """Caps per hour, day and month by the clock and the calendar (UTC), and in total; a rate per minute; and how many
    requests may run at a time."""

    max_parallel_requests: Parallel | None = Field(
        default=None,
        description="Requests at a time. A further one waits (`ledger.contention_wait_secs`), then gets a 429.",
    )
    minute: RateSpec | None = Field(default=None, description="A limit of rate: beyond it a 429, with Retry-After.")
    hour: CapSpec | None = Field(default=None, description="From full hour to full hour.")
    day: CapSpec | None = Field(default=None, description="From midnight to midnight.")
    month: CapSpec | None = Field(default=None, description="From the first of the month.")
    total: CapSpec | None = Field(default=None, description="Never refills.")


class UserSpec(WindowsSpec):
    """Caps of each end user of a key: of the application's own customers, whom requests name. Windows as a key's."""

    require: bool = Field(
        default=False,
        description="Refuse requests that name no user. Default: the other caps alone bind them.",
    )


class CapsSpec(Spec):
    """The tightest of all caps that apply wins."""

    request: CapSpec | None = Field(default=None, description="For each request, all of its attempts together.")
    task: TaskCapSpec | None = Field(
        default=None, description="For each task; a call without a task counts as one of its own."
    )
    key: WindowsSpec = Field(default=WindowsSpec(), description="For each key that sets no caps of its own.")
    team: WindowsSpec = Field(default=WindowsSpec(), description="For each team that sets no caps of its own.")
    everyone: WindowsSpec = Field(default=WindowsSpec(), alias="global", description="For all keys together.")
    user: UserSpec | None = Field(
        default=None,
        description="For each end user of each key, as requests name them. Default: users are not told apart.",
    )


class TeamSpec(Spec):
    """Keys with caps in common: what they spend together. Each key's own caps bind beside them."""

    caps: WindowsSpec | None = Field(default=None, description="Default: those of `caps.team`.")
    routes: list[Name] | None = Field(default=None, description="The routes of its keys that name none. Default: all.")


class KeySpec(Spec):
    """A client's key; `bursar keys new NAME` prints one."""

    name: Name = Field(description="Its owner: spending and tasks belong to this name.")
    sha256: Sha256 = Field(description="The secret's SHA-256; the secret itself is kept nowhere.")
    former_sha256: Sha256 | None = Field(
        default=None,
        description="The SHA-256 of the secret that this one replaces, which works too until this line is removed.",
    )
    expires: Moment | None = Field(
        default=None, description="When it stops working: a time, or the beginning of a day (UTC)."
    )
    admin: bool = Field(default=False, description="May see everybody's calls and spending, and use the dashboard.")
    probes: bool = Field(
        default=False, description="May send probes (`X-Bursar-Probe`), as admins may; its words on them are believed."
    )
    judges: bool = Field(
        default=False,
        description="May give feedback on any key's calls and tasks, and nothing else: for a verifier.",
    )
    caps: WindowsSpec | None = Field(default=None, description="Default: those of `caps.key`.")
    user_caps: UserSpec | None = Field(default=None, description="For each of its users. Default: `caps.user`.")
    team: Name | None = Field(default=None, description="The team whose caps it draws on as well, one of `teams`.")
    routes: list[Name] | None = Field(default=None, description="The routes it may use. Default: its team's, or all.")

    @model_validator(mode="after")
    def _judges_alone(self) -> KeySpec:
        of_calls = ("admin", "probes", "caps", "user_caps", "team", "routes")
        if self.judges and (found := [name for name in of_calls if getattr(self, name)]):
            raise PydanticCustomError("judges", f"a key that judges makes no calls, so that it goes without {found[0]}")
        return self
