"""What providers have refused of requests, for the next ones: each would be refused once more, and cost a round trip.

Claude Code's requests to a provider of Messages that is not Anthropic are refused up to eight times, for one thing at
a time, before they are taken. Kept by process, by key (an error reply can quote what a client said), by the betas
that are asked for, as some refuse them all in one word, and by the effort, as some models are sampled only where they
do not reason; and for an hour, since providers learn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.core.policy import Candidate
from app.core.types import ChatRequest

KEPT_S = 3600.0
MOST_KEPT = 1024
MOST_EACH = 8
MOST_BYTES = 4096
"""A longer error reply is not kept: it may quote the request."""
MAX_EFFORT_CHARS = 32

Whose = tuple[str, str, str, str, str, str, str]


def whose(key_name: str, request: ChatRequest, candidate: Candidate) -> Whose:
    """Which requests are refused alike."""
    provider = candidate.provider
    betas = request.forward.get("anthropic-beta", "")
    effort = (request.prompt.reasoning_effort or "")[:MAX_EFFORT_CHARS]
    return key_name, provider.name, provider.base_url, candidate.upstream_model, request.dialect, betas, effort


class Refusals:
    """Error replies by whose requests they answer; those noted first are forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Whose, tuple[float, tuple[bytes, ...]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._known)

    def known(self, of: Whose, now_s: float) -> Sequence[bytes]:
        """What was refused of such requests within the last hour, in that order."""
        until_s, found = self._known.get(of, (0.0, ()))
        if found and until_s <= now_s:
            del self._known[of]
            return ()
        return found

    def note(self, of: Whose, refusals: Sequence[bytes], now_s: float) -> None:
        """Without what these say, a request was taken. What was known before is kept as long as it would have been."""
        known = self.known(of, now_s)
        news = [said for said in refusals if len(said) <= MOST_BYTES and said not in known]
        if not news:
            return
        until_s, _ = self._known.get(of, (now_s + KEPT_S, ()))
        self._known[of] = (until_s, (*known, *news)[-MOST_EACH:])
        if len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    def forget(self, of: Whose) -> None:
        """The provider, or the model behind a name, has changed."""
        self._known.pop(of, None)
