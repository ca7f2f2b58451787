"""What is kept of one attempt, for its call's record, metrics and headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from app.core.policy import Candidate
from app.core.seen import Seen
from app.core.types import Outcome, Provenance
from app.gateway.purse import Purse

UPSTREAM_IDS = ("x-request-id", "request-id", "x-amzn-requestid")
"""Where OpenAI (and nearly all), Anthropic and AWS say it."""
MAX_ID_CHARS = 200
RATE_LIMITS = ("x-ratelimit-", "anthropic-ratelimit-")
"""How the names of headers begin that say what a provider's rate limits leave: OpenAI's way, and Anthropic's."""
MOST_RATE_LIMITS = 32


class AttemptRecord(msgspec.Struct):
    """What the decision record keeps of an attempt. `ttft_s`, `first_attempt_s` (its first text, or call of a tool that
    writes) are counted from the call's arrival; `generation_s` is how long its output took. `unpriced_tools`: tools of
    the provider's on offer of which nobody has declared a fee, so that the cost leaves them out (without a cap).
    `left_out`: what was not sent once more of what the provider had refused, or was filled in.
    `choices`: how many came, where that is fewer than were asked for. `cause`: what is known beyond the `error` that
    the client was told."""

    candidate: Candidate
    purse: Purse | None = None
    outcome: Outcome = Outcome.API_ERROR
    status: int | None = None
    mode: str = ""
    clamp_tokens: int | None = None
    clamp_uses: int | None = None
    charged_nano: int | None = 0
    provenance: Provenance = Provenance.METERED
    ttft_s: float | None = None
    first_attempt_s: float | None = None
    generation_s: float | None = None
    cut: dict[str, Any] | None = None
    error: str | None = None
    cause: str | None = None
    usage: dict[str, int] = {}
    seen: Seen | None = None
    unpriced_tools: tuple[str, ...] = ()
    choices: int | None = None
    left_out: list[str] = []
    upstream_id: str | None = None
    rate_limits: list[tuple[bytes, bytes]] = []

    def note_headers(self, headers: Mapping[str, str]) -> None:
        """Keep by which id the provider knows this call, for whoever has to ask there about it, and what its rate
        limits leave, for clients that pace themselves by that."""
        self.upstream_id, self.rate_limits = None, []
        for name in UPSTREAM_IDS:
            if name in headers:
                found = headers[name][:MAX_ID_CHARS]
                self.upstream_id = found if found and _fits_header(found) else None
                break
        limits = [name for name in headers if name.startswith(RATE_LIMITS)]
        if limits:
            told = [(name, headers[name]) for name in limits[:MOST_RATE_LIMITS]]
            self.rate_limits = [(n.encode(), v.encode()) for n, v in told if _fits_header(n) and _fits_header(v)]

    def charge(self, cost_nano: int | None, provenance: Provenance) -> None:
        """Note what it was charged (None: unknown) and where that comes from: by the list alone, where its provider
        bills nothing."""
        self.charged_nano, self.provenance = cost_nano, provenance
        if cost_nano is None:
            self.provenance = Provenance.UNKNOWN
        elif cost_nano and not self.candidate.provider.bills:
            self.provenance = Provenance.LIST_PRICE

    @property
    def tokens_per_sec(self) -> float | None:
        """Output over the time that it took; None where nothing came."""
        output = self.usage.get("output_tokens", 0)
        return int(output / self.generation_s * 1000 + 0.5) / 1000 if output and self.generation_s else None

    @property
    def killed_at_usd(self) -> float | None:
        """What the budget that cut it had spent by then, this attempt included; None where none did."""
        if self.cut is None or self.cut["reason"] != "budget":
            return None
        spent = self.purse.cut_headers.get("x-bursar-spent-usd") if self.purse is not None else None
        return float(spent or self.cut["killed_at_usd"])


def total_nano(attempts: Iterable[AttemptRecord]) -> int | None:
    """What these attempts together were charged, in nano-dollars; None when any of it is unknown."""
    total = 0
    for attempt in attempts:
        if attempt.charged_nano is None:
            return None
        total += attempt.charged_nano
    return total


def _fits_header(text: str) -> bool:
    return len(text) <= MAX_ID_CHARS and text.isascii() and text.isprintable()
