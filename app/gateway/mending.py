"""What of a request is changed after its provider has refused it, so that it can be sent once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.core.policy import Candidate
from app.core.types import ChatRequest
from app.dialects.openai_chat.refused import HEEDED, OTHER_NAME, is_lasting, refused_in


class Mends(NamedTuple):
    """What is left out or filled in from now on, by name; none where the request stays as it is. `lasting`: because of
    what the provider, or the model, does not take from anybody, whatever the conversation. `undone`: what was changed
    because of an earlier refusal is sent as it was, for it is taken now."""

    names: list[str]
    lasting: bool = False
    undone: bool = False


NOTHING = Mends([])


class Mended:
    """A request of which members are not sent that its provider, in Chat or Responses, has refused."""

    _request: ChatRequest
    _candidate: Candidate
    _refused: frozenset[str] = frozenset()
    _undone: frozenset[str] = frozenset()

    def _mends_members(self, refusal: bytes, sent: Callable[[], bytes]) -> Mends:
        request = self._request
        named = self._candidate.is_named(request.model)
        names = refused_in(refusal, sent, request.members, named=named) - self._refused - self._undone
        if self._candidate.provider.openrouter:
            names -= {HEEDED}
        back = frozenset([name for name in names if OTHER_NAME.get(name) in self._refused])
        self._undone |= back
        self._refused = (self._refused | names) - back - {OTHER_NAME[name] for name in back}
        return Mends(sorted(names), lasting=is_lasting(refusal), undone=bool(back))
