"""Tells people of money by a webhook: budgets that are nearly spent, tasks that were cut. Read from the ledger now and
then, aside of all calls, and only where the policy asks for it; each notice is posted by one process."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from app.core.notices import Due, NoticeRules, of_task, of_window
from app.core.windows import moment_of
from app.gateway.limits import ANONYMOUS, MODEL_PART
from app.gateway.services import Services
from app.gateway.windows_used import balances_of, capped_windows
from app.stores.budgets import Cut, LedgerUnavailable
from app.stores.replays import LEASE_S, Claim, Kept, ReplaysUnavailable, SharedReplays

log = structlog.get_logger()

EVERY_S = 15.0
CUTS_AT_ONCE = 500
LINES = 20
MOST_CHARS = 1_900
"""Of more notices at a time, or longer ones, the message has these in words, and all as data: Discord refuses a message
of more than 2,000 characters (https://discord.com/developers/docs/resources/webhook#execute-webhook)."""
POST_WITHIN_S = 10.0
BEGUN, BEGUN_KEPT_S = "begun", 300.0
"""A look for cut tasks is remembered so long. If there is none, notices were off, and what was cut is no news."""
FINGERPRINT = hashlib.sha256(b"notice").digest()
GIVEN = Kept(200, [], b"")

Post = Callable[[str, bytes], Awaitable[str | None]]
"""Posts JSON to a URL; what went wrong, or None."""


class Notices:
    """Gives the notices of one process. `given`: those known to be given, so that nobody is asked again."""

    def __init__(self, services: Services, given: SharedReplays, post: Post | None = None) -> None:
        self._services, self._store, self._post = services, given, post or post_json
        self.given: set[str] = set()
        self._looked_s = -math.inf
        self._failing = False

    async def keep(self, *, every_s: float = EVERY_S) -> None:
        """Look every so often, for ever; close the store at the end."""
        try:
            while True:
                rules = self._services.view.policy.notices
                if rules is not None:
                    await self._try(rules)
                await asyncio.sleep(every_s)
        finally:
            await self._store.close()

    async def _try(self, rules: NoticeRules) -> None:
        try:
            await self.look(rules, moment_of(dt.datetime.now(dt.UTC)))
        except LedgerUnavailable as error:
            self._services.ledger.is_down(error)
        except ReplaysUnavailable as error:
            log.warning("it cannot be told which notices were given, so none are", reason=str(error))

    async def look(self, rules: NoticeRules, moment: str) -> None:
        """Post what is due at a moment (core/windows) and was not posted yet. Raises LedgerUnavailable or
        ReplaysUnavailable."""
        cuts = await self._cuts() if rules.tasks else []
        due = [*await self._windows(rules, moment), *(one for one, _ in cuts)]
        self.given &= {one.once for one in due}
        mine = [one for one in due if await self._claimed(one.once)]
        if mine:
            await self._tell(rules, mine)
        await self._services.ledger.budgets.note_cuts([cut for one, cut in cuts if one.once in self.given])

    async def _tell(self, rules: NoticeRules, mine: Sequence[Due]) -> None:
        problem = await self._post(rules.webhook.value, message(mine))
        if problem is None:
            for one in mine:
                self._give(one)
        self._services.metrics.notices.labels("failed" if problem else "posted").inc(len(mine))
        if problem and not self._failing:
            log.warning("notices cannot be posted; they are tried again", reason=problem, after_s=LEASE_S)
        self._failing = problem is not None

    async def _windows(self, rules: NoticeRules, moment: str) -> list[Due]:
        claims = list(capped_windows(self._services.view.policy, moment).values())
        found: list[Due] = []
        async for claim, balance in balances_of(self._services.ledger.budgets, claims):
            if balance is not None and claim.limit_nano is not None:
                due = of_window(claim.scope, balance, claim.limit_nano, rules.at)
                found += [] if due is None else [due]
        return found

    async def _cuts(self) -> list[tuple[Due, Cut]]:
        """Cut tasks that nobody was told of, the earliest first. Those of before the first look since notices are on
        are not told. None while another process is at that look."""
        budgets, began = self._services.ledger.budgets, await self._store.claim(BEGUN, FINGERPRINT)
        if began is Claim.MINE:
            more = time.monotonic() - self._looked_s > BEGUN_KEPT_S  # else it was this process that looked
            while more:
                before = await budgets.cuts(CUTS_AT_ONCE)
                await budgets.note_cuts(before)
                more = len(before) == CUTS_AT_ONCE
            self._store.keep(BEGUN, GIVEN, BEGUN_KEPT_S)
        elif not isinstance(began, Kept):
            return []
        self._looked_s = time.monotonic()
        cuts = [(self._due(cut), cut) for cut in await budgets.cuts(CUTS_AT_ONCE)]
        await budgets.note_cuts([cut for due, cut in cuts if due is None])
        return [(due, cut) for due, cut in cuts if due is not None]

    @staticmethod
    def _due(cut: Cut) -> Due | None:
        """What is to be said of it: of a task's spending on one model, nothing."""
        if MODEL_PART in cut.scope or cut.balance is None:
            return None
        _, key, task_id = cut.scope.split(":", 2)
        return of_task(None if key == ANONYMOUS else key, task_id, cut.balance)

    async def _claimed(self, name: str) -> bool:
        """Whether this notice is this process's to give now."""
        if name in self.given:
            return False
        found = await self._store.claim(name, FINGERPRINT)
        if isinstance(found, Kept):
            self.given.add(name)
        return found is Claim.MINE

    def _give(self, due: Due) -> None:
        """It is given, which is remembered. What is not stays claimed for a while, which nobody renews: a receiver in
        trouble hears of it twice a minute at most, however many processes there are."""
        self._store.keep(due.once, GIVEN, due.kept_s)
        self.given.add(due.once)


def message(due: Sequence[Due]) -> bytes:
    """The body of a post: its words as `text` (Slack, Mattermost) and `content` (Discord), and the notices as data."""
    lines: list[str] = []
    chars = 0
    for one in due[:LINES]:
        chars += len(one.notice.text) + 1
        if lines and chars > MOST_CHARS:
            break
        lines.append(one.notice.text)
    if len(due) > len(lines):
        lines.append(f"And {len(due) - len(lines)} more.")
    text = "\n".join(lines)
    body: dict[str, Any] = {"text": text, "content": text, "notices": [one.notice for one in due]}
    return msgspec.json.encode(body)


async def post_json(url: str, body: bytes) -> str | None:
    """Post to a webhook; what went wrong, without the URL, which is a secret."""
    import aiohttp  # noqa: PLC0415  (12 MB, for those who ask for notices)

    timeout = aiohttp.ClientTimeout(total=POST_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.post(
                url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response,
        ):
            return None if response.status // 100 == 2 else f"the webhook answered {response.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return type(error).__name__
