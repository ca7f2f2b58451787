"""Which caps bind a call, as claims on the ledger and as one limit of the call's own. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec

from app.core.budget import Claim
from app.core.caps import Windows
from app.core.money import usd_float
from app.core.policy import Candidate, Key, Policy
from app.core.terms import TaskCaps, tighter
from app.core.types import Outcome
from app.core.windows import CHARS, scope_in, window_of

MODEL_PART = "|model:"
"""Between a task and a model, in the name of what it may spend on that model."""
ANONYMOUS = "-"
"""Stands for the key where the gateway is open on loopback."""


class ClientCaps(msgspec.Struct, frozen=True):
    """What the client itself asked for; it can lower the policy's caps, never raise them."""

    request_nano: int | None = None
    task_nano: int | None = None
    task_calls: int | None = None
    task_tokens: int | None = None
    task_s: float | None = None
    task_parallel: int | None = None


NO_CAPS = ClientCaps()


class Used(msgspec.Struct, frozen=True):
    """What earlier attempts of a call have used of the caps that are its own: nano-dollars of all of them, and of those
    at the candidate in question; tokens; milliseconds."""

    nano: int = 0
    on_model_nano: int = 0
    tokens: int = 0
    ms: int = 0


NOTHING_USED = Used()


class Limits(msgspec.Struct, frozen=True, dict=True):
    """`claims` are for the ledger; `call_nano` is what is left of the tightest cap that is this call's alone and
    `call_scope` what that is called: request, task or model (a call without a task is a task of its own);
    `call_used_nano` is what earlier attempts have used of it. `call_tokens` and `call_ms` are left to such a call.
    """

    claims: tuple[Claim, ...]
    call_nano: int | None
    call_scope: str
    call_tokens: int | None = None
    call_ms: int | None = None
    call_used_nano: int = 0

    def beside(self, claims: tuple[Claim, ...]) -> Limits:
        """These limits with further claims before their own."""
        left = self.call_nano, self.call_scope, self.call_tokens, self.call_ms, self.call_used_nano
        return Limits((*claims, *self.claims), *left)

    @property
    def call_cap_nano(self) -> int | None:
        """The whole of that cap."""
        return None if self.call_nano is None else self.call_nano + self.call_used_nano

    @functools.cached_property
    def capped(self) -> bool:
        """True when a limit in dollars applies, so that an unknown price cannot be let through."""
        return self.call_nano is not None or any(
            c.limit_nano is not None or c.own_limit_nano is not None for c in self.claims
        )

    @functools.cached_property
    def told(self) -> msgspec.Raw:
        """The caps as a call's record has them, in dollars, in JSON: its own, those of shared scopes, and what its
        client made of these. Made once, for most calls have the very limits of another."""
        own_nano = self.call_cap_nano
        found: list[dict[str, object]] = []
        if own_nano is not None:
            found.append({"scope": self.call_scope, "limit_usd": usd_float(own_nano)})
        found += [_told(c.scope, c.limit_nano) for c in self.claims if c.limit_nano is not None]
        found += [
            {**_told(c.scope, c.own_limit_nano), "by": "client"} for c in self.claims if c.own_limit_nano is not None
        ]
        return msgspec.Raw(msgspec.json.encode(found))


def _told(scope: str, limit_nano: int) -> dict[str, object]:
    return {"scope": scope_kind(scope), "name": scope, "limit_usd": usd_float(limit_nano)}


def task_scope(key_name: str, task_id: str) -> str:
    """The ledger's name of a task. Tasks of different keys never share money."""
    return f"task:{key_name}:{task_id}"


def task_caps(policy: Policy, caps: ClientCaps) -> TaskCaps | None:
    """A task's limits besides money, the policy's and the client's; None where there are none."""
    of = policy.caps
    if (
        of.task_calls is of.task_tokens is of.task_s is of.task_parallel is None
        and caps.task_calls is caps.task_tokens is caps.task_s is caps.task_parallel is None
    ):
        return None
    return TaskCaps(
        of.task_calls,
        of.task_tokens,
        in_ms(of.task_s),
        caps.task_calls,
        caps.task_tokens,
        in_ms(caps.task_s),
        parallel=of.task_parallel,
        own_parallel=caps.task_parallel,
    )


def in_ms(seconds: float | None) -> int | None:
    """Whole milliseconds, none for none."""
    return None if seconds is None else int(seconds * 1000)


CUT_OUTCOMES: Mapping[str, Outcome] = {
    "budget": Outcome.COST_KILLED,
    "calls": Outcome.STEP_EXHAUSTED,
    "tokens": Outcome.THRASH_KILLED,
    "repeats": Outcome.THRASH_KILLED,
    "time": Outcome.TASK_TIMEOUT,
}
"""What a task's cap of each kind makes of a call. Where only its owner stopped it, the call is denied."""


def below(claims: tuple[Claim, ...], scope: str, above: tuple[str, ...]) -> tuple[Claim, ...]:
    """The claims of a task that hangs below others, whose caps the policy sets alike."""
    at = next(index for index, claim in enumerate(claims) if claim.scope == scope)
    own = claims[at]
    caps = own.caps and TaskCaps(own.caps.calls, own.caps.tokens, own.caps.ms, parallel=own.caps.parallel)
    known = {claim.scope for claim in claims}
    higher = (Claim(name, own.limit_nano, None, caps) for name in above if name not in known)
    return (*claims[: at + 1], *higher, *claims[at + 1 :])


def limits_for(
    policy: Policy,
    candidate: Candidate,
    key: Key | None,
    task_id: str | None,
    caps: ClientCaps,
    moment: str,
    used: Used = NOTHING_USED,
    user: str | None = None,
) -> Limits:
    """Every cap that binds this call's next attempt, at this candidate; `moment` as in core/windows, `user` as in
    core/users. What attempts have used of shared caps the ledger knows; of the call's own it is `used`."""
    tokens: int | None = None
    ms: int | None = None
    other = task_caps(policy, caps)
    requests, tasks = (policy.caps.request_nano, caps.request_nano), (policy.caps.task_nano, caps.task_nano)
    own = [_left(nano, used.nano, "request") for nano in requests if nano is not None]
    claims: list[Claim] = []
    model_nano = candidate.budget.max_cost_nano
    name = key.name if key is not None else ANONYMOUS
    if task_id is None:
        own += [_left(nano, used.nano, "task") for nano in tasks if nano is not None]
        if model_nano is not None:
            own.append(_left(model_nano, used.on_model_nano, "model"))
        if other is not None:
            tokens = _minus(tighter(other.tokens, other.own_tokens), used.tokens)
            ms = _minus(tighter(other.ms, other.own_ms), used.ms)
    else:
        scope = task_scope(name, task_id)
        claims.append(Claim(scope, policy.caps.task_nano, caps.task_nano, other))
        claims.append(Claim(f"{scope}{MODEL_PART}{candidate.name}", model_nano))
    if user is not None and (users := policy.users_of(key)) is not None:
        claims += user_claims(name, user, users.windows, moment)
    if key is not None:
        claims += window_claims(f"key:{name}", policy.key_windows(key), moment)
        if key.team is not None:
            claims += window_claims(f"team:{key.team}", policy.team_windows(key.team), moment)
    claims += window_claims("global", policy.caps.everyone, moment)
    if not own:
        return Limits(tuple(claims), None, "request", tokens, ms)
    call_nano, call_used_nano, call_scope = min(own)
    return Limits(tuple(claims), call_nano, call_scope, tokens, ms, call_used_nano)


def _left(cap_nano: int, used_nano: int, scope: str) -> tuple[int, int, str]:
    """What is left of a cap and what is used of it, together the cap; whose it is."""
    return max(cap_nano - used_nano, 0), min(used_nano, cap_nano), scope


def _minus(most: int | None, used: int) -> int | None:
    return None if most is None else max(most - used, 0)


def window_claims(owner: str, windows: Windows, moment: str) -> tuple[Claim, ...]:
    """Day, month and total of an owner (`global`, `team:NAME`, `key:NAME`), those without a limit too; its minute and
    hour where they are limited. How many may run at a time is a limit of its total."""
    return _window_claims(owner, windows, moment[: CHARS[windows.finest]])


def user_claims(key_name: str, user: str, windows: Windows, moment: str) -> tuple[Claim, ...]:
    """The same of an end user (`core/users`) of a key: two keys' users are never the same."""
    return _user_claims(user_owner(key_name, user), windows, moment[: CHARS[windows.finest]])


def user_owner(key_name: str, user: str) -> str:
    """What the scopes of this user's windows begin with."""
    return f"user:{key_name}:{user}"


def _claims_in(owner: str, windows: Windows, moment: str) -> tuple[Claim, ...]:
    at_a_time = None if windows.parallel is None else TaskCaps(parallel=windows.parallel)
    claims = [
        Claim(scope_in(owner, "day", moment), windows.day_nano),
        Claim(scope_in(owner, "month", moment), windows.month_nano),
        Claim(scope_in(owner, "total", moment), windows.total_nano, caps=at_a_time),
    ]
    if windows.hour_nano is not None:
        claims.append(Claim(scope_in(owner, "hour", moment), windows.hour_nano))
    if windows.finest == "minute":
        rate = TaskCaps(calls=windows.minute_calls, tokens=windows.minute_tokens, at_entry=True)
        claims.append(Claim(scope_in(owner, "minute", moment), caps=rate))
    return tuple(claims)


_window_claims = functools.lru_cache(maxsize=1024)(_claims_in)
"""They are the same for all calls of a key in one window, so they are made once."""
_user_claims = functools.lru_cache(maxsize=1024)(_claims_in)
"""Apart, for users may be many, and would take the places of keys."""


def scope_kind(scope: str) -> str:
    """request, task, model, user, key, team or global: the low-cardinality word for metrics, headers and messages."""
    if scope.startswith("task:"):
        return "model" if MODEL_PART in scope else "task"
    return scope.partition(":")[0]


def scope_word(scope: str) -> str:
    """The kind, with its window where it has one: request, task, model, key_day, global_month ..."""
    kind, window = scope_kind(scope), window_of(scope)
    return f"{kind}_{window}" if window else kind


def is_task_scope(scope: str) -> bool:
    """True for scopes that a cut closes for good: a task, and a task's spending on one model."""
    return scope.startswith("task:")
