"""The response object: what the request echoes, what the reply adds, and how it ends.

SDKs read it strictly enough to need `tools`, `tool_choice`, `parallel_tool_calls` and `output` in every one.
Source: https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from app.core.raw import NULL
from app.core.types import ChatRequest
from app.dialects.openai_chat.chunks import one_line
from app.dialects.openai_chat.render import object_bytes, strip_task_id
from app.dialects.openai_responses.stored import told_as

_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ID_CHARS = 40
_PREFIX = re.compile(r"^(?:resp_|msg_|chatcmpl-)")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_Members = dict[str, msgspec.Raw]

_ECHOED: dict[str, bytes] = {
    "instructions": NULL,
    "max_output_tokens": NULL,
    "max_tool_calls": NULL,
    "parallel_tool_calls": b"true",
    "previous_response_id": NULL,
    "reasoning": b'{"effort":null,"summary":null}',
    "service_tier": b'"default"',
    "store": b"false",
    "temperature": b"1.0",
    "text": b'{"format":{"type":"text"}}',
    "tool_choice": b'"auto"',
    "tools": b"[]",
    "top_p": b"1.0",
    "truncation": b'"disabled"',
    "user": NULL,
    "metadata": b"{}",
}
"""What a response repeats of its request, with the value of a member that was not sent."""


class Reply:
    """The response object of one reply. `id`, `model` and `created`: the provider's, as far as it has said them."""

    def __init__(self, request: ChatRequest) -> None:
        self._stored = request.stored
        self._named = self._stored is not None and self._stored.reply_id is not None
        self.id = (self._stored.reply_id if self._stored is not None else None) or "resp_bursar"
        self.model = request.model
        self.created = 0
        self._request = request
        self._echoed: _Members | None = None
        self._seen: _Members = {}

    @property
    def base(self) -> str:
        """What the ids of this reply's items are made of."""
        return self.id.removeprefix("resp_")

    def begin(self, reply_id: str, model: str, created: int) -> None:
        """Name the reply after the provider's, whatever dialect that speaks, unless it is stored here."""
        if reply_id and not self._named:
            self.id = "resp_" + _FOREIGN.sub("", _PREFIX.sub("", reply_id))[:_ID_CHARS]
        self.model = model or self.model
        self.created = created or self.created

    def saw(self, response: msgspec.Raw) -> None:
        """The response object of a passing frame: the end of this reply is made of it."""
        self._seen = _members.decode(response)

    def bytes(
        self,
        status: str,
        *,
        output: list[msgspec.Raw],
        usage: msgspec.Raw | None = None,
        error: dict[str, str] | None = None,
        reason: str | None = None,
        cut: bytes | None = None,
    ) -> msgspec.Raw:
        """The object. `reason`: why it is incomplete; `cut`: JSON about a soft cut, which stands under `bursar`."""
        members: _Members = {
            "id": msgspec.Raw(_encode(self.id)),
            "object": msgspec.Raw(b'"response"'),
            "created_at": msgspec.Raw(b"%d" % self.created),
            "background": msgspec.Raw(b"false"),
            "model": msgspec.Raw(_encode(self.model)),
            **self._echo(),
            **self._seen,
            "status": msgspec.Raw(_encode(status)),
            "error": msgspec.Raw(_encode(error)),
            "incomplete_details": msgspec.Raw(_encode(None if reason is None else {"reason": reason})),
            "output": msgspec.Raw(b"[" + b",".join(output) + b"]"),
            "usage": msgspec.Raw(NULL) if usage is None else usage,
        }
        if cut is not None:
            members["bursar"] = msgspec.Raw(b'{"cut":' + cut + b"}")
        return msgspec.Raw(object_bytes(told_as(members, self._stored)))

    def _echo(self) -> _Members:
        if self._echoed is None:
            sent = dict(self._request.members)
            if self._request.task_id is not None and "metadata" in sent:
                strip_task_id(sent)
            self._echoed = {name: _echo_of(sent.get(name), default) for name, default in _ECHOED.items()}
        return self._echoed


def _echo_of(sent: msgspec.Raw | None, default: bytes) -> msgspec.Raw:
    """As sent but for line ends, which would break an event's data."""
    given = default if sent is None or bytes(sent) == NULL else bytes(sent).replace(b"\r", b" ")
    return msgspec.Raw(one_line(given))


def item_bytes(item: dict[str, Any]) -> msgspec.Raw:
    """An item of `output`."""
    return msgspec.Raw(_encode(item))
