"""`POST /v1/responses`, which may go on from what is stored here, and is stored where the policy says so.

A request that names stored responses or items becomes the whole conversation before it is decided: what follows knows
no difference. Its response is stored before its last bytes go out, for the next request may come at once, elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog

from app.core.errors import BadRequest, ContextTooLong, NotFound, PreviousNotFound, ResponsesDown
from app.core.stored import Stored
from app.core.types import ChatRequest
from app.dialects.counted import counted
from app.dialects.openai_chat.parse import members_of
from app.dialects.openai_responses.count import count_reply, patch_count
from app.dialects.openai_responses.parse import parse_members
from app.dialects.openai_responses.stored import (
    OURS,
    REPLY_ID,
    Asked,
    by_id,
    going_on,
    gone_on_from,
    items_in,
    kept_in,
    listed,
    own_items,
    said_in,
    wants_stored,
)
from app.dialects.registry import RESPONSES
from app.gateway.calls import Stop, Waits
from app.gateway.owned import OwnedCall
from app.gateway.services import Services
from app.http.count import Counting, CountRoute
from app.http.generate import GenerateRoute
from app.http.hot import Incoming, key_name, new_request_id
from app.stores.responses import FORGET_S, ResponsesUnavailable, StoredResponse, StoredResponses, TooMuch

log = structlog.get_logger()

MOST_REFERENCES = 10_000
"""Items that one request may name: in Redis they are looked up in one go, for which the ledger waits."""
_Members = dict[str, msgspec.Raw]


class _Found(NamedTuple):
    """What a request refers to, as far as it is here. `before`: all that was said until the response that it goes on
    from, None: it goes on from none; `of`: the responses that hold it; `all_here`: nothing of it is elsewhere."""

    before: list[msgspec.Raw] | None
    items: dict[str, msgspec.Raw]
    of: list[str]
    all_here: bool


class ResponsesRoute(GenerateRoute):
    """One per process."""

    def __init__(self, services: Services, *, max_body_bytes: int) -> None:
        super().__init__(services, RESPONSES, max_body_bytes=max_body_bytes)

    async def serve(self, incoming: Incoming) -> OwnedCall:
        view = self.services.view
        rules = view.policy.stored_responses
        if rules is None:
            return await super().serve(incoming)
        headers, members = incoming.headers, members_of(incoming.body)
        request = parse_members(members, headers)  # what is wrong is told of what the client has sent
        owner, asked = key_name(incoming.key), Asked(members)
        found = await _found(self.services, owner, asked, self._max_body_bytes)
        own = own_items(members, found.items, found.before or ())
        keeps = found.all_here and wants_stored(members)
        reply_id = REPLY_ID + new_request_id().removeprefix("req_") if keeps else None
        stored = Stored(reply_id, asked.previous_id if found.before is not None else None)
        if found.of:
            request = parse_members(going_on(members, found.before, own), headers, stored)
        else:
            request.stored = stored
        if self.services.view is not view:  # the policy was edited meanwhile
            incoming.key = self._gate(headers)
        call = self._call(incoming, request)
        if reply_id is not None:
            incoming.downstream.before_end = _Keeper(self.services, owner, request, own, found.of, call.waits).keep
        return call


class ResponsesCount(CountRoute):
    """Counts a request's input, with all that it goes on from."""

    def __init__(self, services: Services, *, max_body_bytes: int) -> None:
        counting = Counting(RESPONSES, _parsed, patch_count, counted, count_reply)
        super().__init__(services, counting, max_body_bytes=max_body_bytes)

    async def read(self, incoming: Incoming) -> ChatRequest:
        """The whole conversation, where its beginning is stored here."""
        view = self.services.view
        request = await super().read(incoming)
        if view.policy.stored_responses is None:
            return request
        asked = Asked(request.members)
        found = await _found(self.services, key_name(incoming.key), asked, self._max_body_bytes)
        if self.services.view is not view:
            incoming.key = self._gate(incoming.headers)
        if not found.of:
            return request
        own = own_items(request.members, found.items, found.before or ())
        return parse_members(going_on(request.members, found.before, own), incoming.headers)


def _parsed(body: bytes, headers: Mapping[str, str], _: Mapping[str, str]) -> ChatRequest:
    return parse_members(members_of(body), headers)


async def _found(services: Services, owner: str, asked: Asked, max_bytes: int) -> _Found:
    """Raises PreviousNotFound or NotFound for what can only be here and is not, ContextTooLong, ResponsesDown."""
    previous, names = asked.previous_id, asked.references
    if len(names) > MOST_REFERENCES:
        raise BadRequest(f"The parameter input names more than {MOST_REFERENCES} items.", param="input")
    store = services.responses
    chain: list[StoredResponse] = []
    holders: list[StoredResponse] = []
    try:
        if previous is not None and previous.startswith(REPLY_ID):
            chain = await store.chain(owner, previous, max_bytes)
            if not chain:
                raise PreviousNotFound(
                    "The previous response was not found: no such response of this key is stored, or a part of the"
                    " conversation is not any more.",
                    param="previous_response_id",
                )
        if names:
            holders = await store.holding(owner, names, max_bytes)
    except TooMuch:
        raise ContextTooLong("The conversation, as it is stored, is larger than this gateway accepts.") from None
    except ResponsesUnavailable as error:
        log.warning("a stored conversation could not be read", error=str(error))
        raise ResponsesDown("The store of responses does not answer.", headers={"retry-after": "1"}) from None
    said = by_id(item for holder in holders for item in said_in(holder.body))
    items = {name: said[name] for name in names if name in said}
    missing = [name for name in names if name not in items]
    if any(f"_{OURS}" in name for name in missing):
        raise NotFound(
            "An item that the parameter input names was not found: no such item of this key is stored, or not any"
            " more.",
            param="input",
        )
    before = [item for one in chain for item in (*items_in(one.input), *gone_on_from(one.body))]
    of = list(dict.fromkeys(one.id for one in (*chain, *holders)))
    all_here = not missing and not asked.elsewhere and (previous is None or bool(chain))
    return _Found(before if chain else None, items, of, all_here)


class _Keeper:
    """Stores one reply, where it is one that is kept."""

    def __init__(
        self,
        services: Services,
        owner: str,
        request: ChatRequest,
        own: Sequence[msgspec.Raw],
        of: Sequence[str],
        waits: Waits,
    ) -> None:
        self._services, self._waits = services, waits
        self._owner, self._request, self._own, self._of = owner, request, own, of

    async def keep(self, end: bytes) -> bool:
        """With the last bytes of a reply; whether it is stored, as it says. The answer is paid for: whatever becomes of
        this, it goes out; how long a client may take to read it is counted from then on."""
        now_s, until_s = asyncio.get_running_loop().time, self._waits.deadline_s
        began_s, self._waits.deadline_s = now_s(), math.inf
        try:
            result = await self._kept(end)
        except ResponsesUnavailable as error:
            result = "failed"
            log.warning("a response could not be stored: nobody can go on from it", error=str(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or self._waits.stopped in (None, Stop.CLIENT_GONE):
                raise
            task.uncancel()  # a deadline or a shutdown: the answer goes out all the same
            result = "failed"
            log.warning("a response could not be stored in time: nobody can go on from it")
        except Exception:
            result = "failed"
            log.exception("a response could not be stored: nobody can go on from it")
        finally:
            self._waits.deadline_s = until_s + now_s() - began_s
        if result is not None:
            self._services.metrics.responses_stored.labels(result).inc()
        return result == "stored"

    async def _kept(self, end: bytes) -> str | None:
        """What became of it; None where it is not one that is kept, or the policy stores nothing any more."""
        stored, rules = self._request.stored, self._services.view.policy.stored_responses
        if rules is None or stored is None or stored.reply_id is None:
            return None
        if (body := kept_in(end, streamed=self._request.stream)) is None:
            return None
        response = StoredResponse(stored.reply_id, stored.previous_id, bytes(listed(self._own)), body)
        fits = await self._services.responses.put(self._owner, response, list(by_id(said_in(body))), self._of, rules)
        return "stored" if fits else "too_large"


async def forget(store: StoredResponses) -> None:
    """Delete what is over, until cancelled: also where the policy stores nothing any more."""
    while True:
        try:
            await store.forget()
        except ResponsesUnavailable as error:
            log.warning("stored responses that are over could not be deleted", error=str(error))
        await asyncio.sleep(FORGET_S)
