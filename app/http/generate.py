"""The hot routes that generate: chat completions, responses, messages and generateContent, each in its dialect."""

from __future__ import annotations

from app.core.errors import BadRequest, Forbidden
from app.core.policy import Key
from app.core.types import ChatRequest
from app.dialects.base import Dialect
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.registry import CHAT, dialect_named
from app.gateway.call import ChatCall
from app.gateway.owned import OwnedCall
from app.gateway.services import Services
from app.http.asking import is_operator
from app.http.caps import client_caps
from app.http.header_text import meant
from app.http.hot import PROBED, HotRoute, Incoming
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

    async def serve(self, incoming: Incoming) -> OwnedCall:
        return self._call(incoming, self._parse(incoming))

    def whose(self, incoming: Incoming) -> Whose:
        try:
            request = self._parse(incoming)
        except BadRequest:  # it was answered before: here only its task is asked for
            request = None
        return task_of(incoming.headers, request, incoming.path_task)

    def _call(self, incoming: Incoming, request: ChatRequest) -> OwnedCall:
        headers = incoming.headers
        whose = task_of(headers, request, incoming.path_task)
        record = self.new_record(incoming, whose, model=request.model, stream=request.stream)
        if record.view.counts_users:
            self.note_user(record, incoming, request.members)
        if PROBED in headers:
            record.probe = probed_model(meant(headers[PROBED]), incoming.key)
        return ChatCall(
            self.services,
            request,
            incoming.downstream,
            key=incoming.key,
            caps=client_caps(headers, request.max_cost_nano),
            soft_cut=softness_of(headers),
            record=record,
        )

    def _parse(self, incoming: Incoming) -> ChatRequest:
        if self._name == CHAT:
            return parse_chat(incoming.body)
        return self.dialect.parse(incoming.body, incoming.headers, incoming.path)


def probed_model(name: str, key: Key | None) -> str:
    """`X-Bursar-Probe`: the model that a probe is for. Raises Forbidden: what is said of probes can keep a model from
    its work, and is believed."""
    if not (is_operator(key) or (key is not None and key.probes)):
        raise Forbidden("This key may not send probes: the policy has to say so.", param="X-Bursar-Probe")
    return name


def softness_of(headers: dict[str, str]) -> bool | None:
    """`X-Bursar-On-Cut`: True for length, False for error, None where the client leaves it to the policy."""
    value = headers.get("x-bursar-on-cut")
    if value is None:
        return None
    if value not in ("length", "error"):
        raise BadRequest("The header X-Bursar-On-Cut must be error or length.", param="X-Bursar-On-Cut")
    return value == "length"
