"""What a policy caps: per request, per task, and per window of the clock and the calendar."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.windows import Window


@dataclass(frozen=True, slots=True)
class Windows:
    """Limits per window of the clock and the calendar (UTC): in nano-dollars, for the minute in calls and tokens.
    `parallel`: calls at a time."""

    day_nano: int | None = None
    month_nano: int | None = None
    total_nano: int | None = None
    hour_nano: int | None = None
    minute_calls: int | None = None
    minute_tokens: int | None = None
    parallel: int | None = None

    @property
    def finest(self) -> Window:
        """The shortest window that has to be told from the next."""
        if self.minute_calls is not None or self.minute_tokens is not None:
            return "minute"
        return "day" if self.hour_nano is None else "hour"


@dataclass(frozen=True, slots=True)
class Users:
    """How the end users of one key are bound: each by these windows. `required`: a request that names none is
    refused."""

    windows: Windows = Windows()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Caps:
    """The policy's caps: the tightest of all that apply wins. A task's clock runs from its first call; the same request
    is served `task_repeats` times; untouched for `task_idle_days` it is forgotten. `user`: None: no end users are told
    apart."""

    request_nano: int | None = None
    task_nano: int | None = None
    task_calls: int | None = None
    task_tokens: int | None = None
    task_s: float | None = None
    task_repeats: int | None = None
    task_parallel: int | None = None
    task_idle_days: float = 30.0
    key: Windows = Windows()
    team: Windows = Windows()
    everyone: Windows = Windows()
    user: Users | None = None
