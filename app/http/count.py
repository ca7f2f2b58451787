"""Counting tokens before a call: an estimate of ours, which costs nothing and asks no provider.

Agents count to see when to compact a conversation. The estimate is calibrated by what providers have reported for the
model that the name stands for, and leans high, as the gateway's own reservations do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.core.errors import BursarError
from app.core.policy import Key
from app.core.tokens import estimate_input
from app.core.types import ChatRequest
from app.dialects.base import Dialect
from app.dialects.registry import dialect_named
from app.gateway.services import Services
from app.gateway.target import resolve
from app.http.asgi import AsgiDownstream
from app.http.hot import HotRoute, id_headers

Parse = Callable[[bytes, Mapping[str, str], Mapping[str, str]], ChatRequest]


class CountRoute(HotRoute):
    """Serves one dialect's counting; `parse` reads its request, `reply` writes a count."""

    def __init__(
        self, services: Services, dialect: str, parse: Parse, reply: Callable[[int], bytes], *, max_body_bytes: int
    ) -> None:
        super().__init__(services, max_body_bytes=max_body_bytes)
        self._name = dialect
        self._parse = parse
        self._reply = reply

    @property
    def dialect(self) -> Dialect:
        return dialect_named(self._name)

    async def serve(
        self,
        headers: dict[str, str],
        body: bytes,
        key: Key | None,
        downstream: AsgiDownstream,
        path_task: str | None,
        path: Mapping[str, str],
    ) -> None:
        """Answer at once."""
        request = self._parse(body, headers, path)
        prompt = request.prompt
        estimate = estimate_input(prompt.text_bytes, prompt.messages, prompt.attachments)
        counted = self._reply(self._calibrated(request.model, key, estimate))
        await downstream.reply(200, [(b"content-type", b"application/json"), *id_headers()], counted)

    def _calibrated(self, model: str, key: Key | None, estimate: int) -> int:
        """By the first candidate that the name stands for; a name that stands for nothing is counted all the same."""
        try:
            candidate = resolve(self.services.view, model, key).every[0]
        except BursarError:
            return estimate
        return int(estimate * self.services.calibration(candidate.name).input.mean)
