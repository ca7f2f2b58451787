"""The hot routes that generate: chat completions, responses, messages and generateContent, each in its dialect."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import BadRequest
from app.core.policy import Key
from app.core.types import ChatRequest
from app.dialects.base import Dialect
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.registry import CHAT, dialect_named
from app.gateway.call import ChatCall
from app.gateway.owned import OwnedCall
from app.gateway.services import Services
from app.http.asgi import AsgiDownstream
from app.http.caps import client_caps
from app.http.hot import HotRoute
from app.http.whose import Whose, task_of


class GenerateRoute(HotRoute):
    """Serves one dialect; one per process."""

    def __init__(self, services: Services, dialect: str, *, max_body_bytes: int) -> None:
        super().__init__(services, max_body_bytes=max_body_bytes)
        self._name = dialect

    @property
    def dialect(self) -> Dialect:
        """Loaded when the first client speaks it."""
        return dialect_named(self._name)

    async def serve(
        self,
        headers: dict[str, str],
        body: bytes,
        key: Key | None,
        downstream: AsgiDownstream,
        path_task: str | None,
        path: Mapping[str, str],
    ) -> OwnedCall:
        """The call for a request that passed the gate."""
        return self._call(self._parse(body, headers, path), headers, key, downstream, path_task)

    def whose(self, headers: dict[str, str], body: bytes, path_task: str | None, path: Mapping[str, str]) -> Whose:
        try:
            request = self._parse(body, headers, path)
        except BadRequest:  # it was answered before: here only its task is asked for
            request = None
        return task_of(headers, request, path_task)

    def _call(
        self,
        request: ChatRequest,
        headers: dict[str, str],
        key: Key | None,
        downstream: AsgiDownstream,
        path_task: str | None,
    ) -> OwnedCall:
        task = task_of(headers, request, path_task)
        caps = client_caps(headers, request.max_cost_nano)
        record = self.new_record(headers, key, task, model=request.model, stream=request.stream)
        return ChatCall(
            self.services, request, downstream, key=key, caps=caps, soft_cut=softness_of(headers), record=record
        )

    def _parse(self, body: bytes, headers: Mapping[str, str], path: Mapping[str, str]) -> ChatRequest:
        return parse_chat(body) if self._name == CHAT else self.dialect.parse(body, headers, path)


def softness_of(headers: dict[str, str]) -> bool | None:
    """`X-Bursar-On-Cut`: True for length, False for error, None where the client leaves it to the policy."""
    value = headers.get("x-bursar-on-cut")
    if value is None:
        return None
    if value not in ("length", "error"):
        raise BadRequest("The header X-Bursar-On-Cut must be error or length.", param="X-Bursar-On-Cut")
    return value == "length"
