"""A Responses request as a canonical conversation, for upstreams of other dialects.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from app.core.conversation import Conversation, Message, Part, Refusal, Role, Text, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_responses import proofs, shapes
from app.dialects.openai_responses.carried import CARRIED_ITEMS, DROPPED_ITEMS
from app.dialects.openai_responses.custom import as_arguments
from app.dialects.openai_responses.media import parts_of
from app.dialects.openai_responses.names import ToolNames
from app.dialects.openai_responses.options import read_options
from app.dialects.openai_responses.shapes import Item, given

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


def conversation_of(request: ChatRequest) -> Conversation:
    """The whole request. Raises BadRequest for what `carried` refuses, naming the parameter."""
    names = ToolNames(request)
    talk = Conversation(messages=[])
    read_options(request, talk, names)
    members = request.members
    if "instructions" in members and (said := field_of(shapes.optional_string, members, "instructions")):
        talk.messages.append(Message("system", [Text(said)]))
    items = field_of(shapes.items, members, "input")
    if isinstance(items, str):
        talk.messages.append(Message("user", [Text(items)]))
    else:
        _Turns(talk, names).read(items)
    return talk


class _Turns:
    """Gathers items into turns: what an assistant said, thought and called between two messages is one, and so are
    the results of its calls."""

    def __init__(self, talk: Conversation, names: ToolNames) -> None:
        self._talk = talk
        self._names = names
        self._called: dict[str, str] = {}
        self._signature: str | None = None

    def read(self, items: list[Item]) -> None:
        """All items of `input`. Raises BadRequest."""
        for place, item in enumerate(items):
            self._read(item, f"input[{place}]")

    def _read(self, item: Item, param: str) -> None:
        kind = item.kind
        if kind == "message":
            self._message(item, param)
        elif kind == "reasoning":
            self._reasoning(item, param)
        elif kind in ("function_call", "custom_tool_call"):
            self._assistant(self._call(item, param))
        elif kind in CARRIED_ITEMS:
            self._result(item, param)
        elif kind == "item_reference":
            raise BadRequest(
                f"The parameter {param} refers to an item (item_reference) that the chosen model's provider has not"
                " stored: send the item itself. Clients such as the AI SDK do so with the option store: false.",
                param=param,
            )
        elif kind not in DROPPED_ITEMS:
            raise BadRequest(
                f"The parameter {param} is of a type ({kind}) that the chosen model's provider cannot read.",
                param=param,
            )
        elif kind not in self._talk.dropped:
            self._talk.dropped.append(kind)

    def _assistant(self, part: Part) -> None:
        messages = self._talk.messages
        if not messages or messages[-1].role != "assistant":
            messages.append(Message("assistant", []))
        messages[-1].parts.append(part)

    def _message(self, item: Item, param: str) -> None:
        role = _ROLES.get(item.role or "")
        if role is None:
            raise BadRequest(f"The parameter {param}.role is wrong.", param=f"{param}.role")
        parts = parts_of(item.content, f"{param}.content")
        if role == "assistant":
            for part in parts:
                if not isinstance(part, Text) or part.text:
                    self._assistant(part)
        elif parts:
            self._talk.messages.append(Message(role, [*parts], developer=item.role == "developer"))

    def _reasoning(self, item: Item, param: str) -> None:
        if (signature := proofs.call_signature(item.encrypted_content)) is not None:
            self._signature = signature
            return
        texts = [part.text for part in item.summary or () if part.text]
        if not texts and given(item.content):
            texts = [part.text for part in parts_of(item.content, f"{param}.content") if isinstance(part, Text)]
        thought = proofs.thinking("\n\n".join(texts), item.encrypted_content, item.id)
        if thought.text or thought.encrypted or thought.signature:
            self._assistant(thought)

    def _call(self, item: Item, param: str) -> ToolCall:
        if not item.call_id or not item.name:
            missing = f"{param}.name" if item.call_id else f"{param}.call_id"
            raise BadRequest(f"The parameter {missing} is required.", param=missing)
        name = self._called[item.call_id] = self._names.flat(item.namespace, item.name)
        signature, self._signature = self._signature, None
        if item.kind == "custom_tool_call":
            return ToolCall(item.call_id, name, as_arguments(item.input or ""), signature=signature)
        place = f"{param}.arguments"
        arguments = field_of(shapes.string, {place: item.arguments}, place)
        return ToolCall(item.call_id, name, arguments, signature=signature)

    def _result(self, item: Item, param: str) -> None:
        if not item.call_id:
            raise BadRequest(f"The parameter {param}.call_id is required.", param=f"{param}.call_id")
        found = parts_of(item.output, f"{param}.output")
        parts = [Text(part.text) if isinstance(part, Refusal) else part for part in found]
        result = ToolResult(item.call_id, parts, name=self._called.get(item.call_id))
        messages = self._talk.messages
        if not (messages and messages[-1].parts and isinstance(messages[-1].parts[-1], ToolResult)):
            messages.append(Message("user", []))
        messages[-1].parts.append(result)
