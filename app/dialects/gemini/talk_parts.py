"""The contents of a Gemini request as canonical messages, with an id for every call: clients often send none.

Source: https://ai.google.dev/api/caching#Part and https://ai.google.dev/gemini-api/docs/function-calling.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from app.core.conversation import Media, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.dialects.gemini.carry import REFUSED, refusal
from app.dialects.gemini.parse import ROLES
from app.dialects.gemini.proof import UNSIGNED, is_foreign, thinking_of
from app.dialects.gemini.values import Members, items_in, json_text, members_in, text_in
from app.dialects.openai_chat.fields import field_of

_string = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_IGNORED = frozenset(("thought", "thoughtSignature"))
_GOOGLES_HOSTS = ("googleapis.com", "youtube.com", "youtu.be", "google.com")


def joined(messages: list[Message]) -> list[Message]:
    """The messages, with what a client has kept in pieces whole again: SDKs put every chunk of a stream into the
    history as a content of its own. Another dialect needs a call's whole turn, and a signed thought's whole text."""
    found: list[Message] = []
    for message in messages:
        if message.role == "assistant" and found and found[-1].role == "assistant":
            found[-1].parts += message.parts
        else:
            found.append(message)
    for message in found:
        if message.role == "assistant":
            message.parts = _joined_parts(message.parts)
    return found


def _joined_parts(parts: list[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + part.text)
        elif isinstance(part, Thinking) and isinstance(last, Thinking) and _is_open(last):
            # What signs a thought comes last, and says whose it is.
            found[-1] = Thinking(last.text + part.text, part.signature, part.encrypted, part.origin, part.id)
        else:
            found.append(part)
    return found


def _is_open(thought: Thinking) -> bool:
    return bool(thought.text) and thought.signature is None and thought.encrypted is None


class Contents:
    """Reads the contents one by one; `dropped` names what is left out.

    A call without an id gets `call_N`, N counting the calls of the conversation, so that the ids of a growing
    conversation stay as they are. A response without a known id answers the oldest open call of its name: clients may
    send an id of their own making for a call that had none.
    """

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._calls = 0
        self._ids: set[str] = set()
        self._open: list[tuple[str, str]] = []

    def message(self, raw: msgspec.Raw, param: str) -> Message:
        """One content as a message. Raises BadRequest for what cannot be carried."""
        content = members_in(raw, param)
        role = ROLES.get(text_in(content, "role", f"{param}.") or "user")
        if role is None:
            raise BadRequest("A content's role must be user or model.", param=f"{param}.role")
        parts: list[Part] = []
        for place, part in enumerate(items_in(content["parts"], f"{param}.parts") if "parts" in content else ()):
            parts += self._parts(part, f"{param}.parts[{place}]")
        speaker: Role = "assistant" if role == "assistant" else "system" if role == "system" else "user"
        return Message(speaker, parts)

    def _parts(self, raw: msgspec.Raw, param: str) -> list[Part]:
        part = members_in(raw, param)
        signature = text_in(part, "thoughtSignature", f"{param}.")
        thought = "thought" in part and field_of(_flag, part, "thought", f"{param}.")
        found: list[Part] = []
        for name in part:
            if name == "text":
                found.append(_text(part, f"{param}.", signature if thought else None, thought=thought))
            elif name == "inlineData":
                found.append(_inline(part[name], f"{param}.{name}"))
            elif name == "fileData":
                found.append(_file(part[name], f"{param}.{name}"))
            elif name == "functionCall":
                found.append(self._call(part[name], f"{param}.{name}", signature))
            elif name == "functionResponse":
                found.append(self._response(part[name], f"{param}.{name}"))
            elif f"parts.{name}" in REFUSED:
                raise refusal(f"{param}.{name}", REFUSED[f"parts.{name}"])
            elif name not in _IGNORED:
                self.dropped.append(f"parts.{name}")
        if signature is not None and not thought and "functionCall" not in part:
            found.append(thinking_of("", signature))
        return found

    def _call(self, raw: msgspec.Raw, param: str, signature: str | None) -> ToolCall:
        call = members_in(raw, param)
        name = _named(call, param)
        given = text_in(call, "id", f"{param}.")
        self._calls += 1
        known = given or f"call_{self._calls - 1}"
        while not given and known in self._ids:
            known += "_"
        self._ids.add(known)
        self._open.append((known, name))
        if "args" in call:
            field_of(_members, call, "args", f"{param}.")
        arguments = json_text(call["args"], f"{param}.args") if "args" in call else "{}"
        if signature is not None and (signature == UNSIGNED or is_foreign(signature)):
            signature = None
        return ToolCall(known, name, arguments, signature=signature)

    def _response(self, raw: msgspec.Raw, param: str) -> ToolResult:
        response = members_in(raw, param)
        name = _named(response, param)
        known = self._answered(text_in(response, "id", f"{param}."), name)
        if known is None:
            raise BadRequest(f"The parameter {param} answers no call of the contents before it.", param=param)
        text, is_error = _said(response, f"{param}.")
        parts: list[Text | Media] = [Text(text)]
        for place, item in enumerate(items_in(response["parts"], f"{param}.parts") if "parts" in response else ()):
            where = f"{param}.parts[{place}]"
            held = members_in(item, where)
            if "inlineData" in held:
                parts.append(_inline(held["inlineData"], f"{where}.inlineData"))
            elif "fileData" in held:
                parts.append(_file(held["fileData"], f"{where}.fileData"))
        return ToolResult(known, parts, is_error=is_error, name=name)

    def _answered(self, given: str | None, name: str) -> str | None:
        by_id = [call for call in self._open if call[0] == given]
        by_name = [call for call in self._open if call[1] == name]
        for call in by_id or by_name:
            self._open.remove(call)
            return call[0]
        return None


def _named(members: Members, param: str) -> str:
    name = text_in(members, "name", f"{param}.")
    if not name:
        raise BadRequest(f"The parameter {param}.name is required.", param=f"{param}.name")
    return name


def _text(part: Members, prefix: str, signature: str | None, *, thought: bool) -> Part:
    text: str = field_of(_string, part, "text", prefix)
    return thinking_of(text, signature) if thought else Text(text)


def _said(response: Members, prefix: str) -> tuple[str, bool]:
    """What a function returned: Google reads `output` or `error` where the object holds one of them alone, else all."""
    if "response" not in response:
        return "", False
    value = field_of(_members, response, "response", prefix)
    for name in ("output", "error"):
        if set(value) == {name}:
            place = f"{prefix}response.{name}"
            if bytes(memoryview(value[name])[:1]) != b'"':
                return json_text(value[name], place), name == "error"
            text: str = field_of(_string, {place: value[name]}, place)
            return text, name == "error"
    return json_text(response["response"], f"{prefix}response"), False


def _inline(raw: msgspec.Raw, param: str) -> Media:
    blob = members_in(raw, param)
    media_type, data = text_in(blob, "mimeType", f"{param}."), text_in(blob, "data", f"{param}.")
    if not media_type or data is None:
        raise BadRequest(f"The parameter {param} must have a mimeType and data.", param=param)
    # Google takes both alphabets of base64, others only the first.
    data = data.replace("-", "+").replace("_", "/")
    return Media(_kind(media_type, param), media_type, data=data, name=text_in(blob, "displayName", f"{param}."))


def _file(raw: msgspec.Raw, param: str) -> Media:
    file = members_in(raw, param)
    address, media_type = text_in(file, "fileUri", f"{param}."), text_in(file, "mimeType", f"{param}.")
    if not address:
        raise BadRequest(f"The parameter {param}.fileUri is required.", param=f"{param}.fileUri")
    try:
        parsed = urlsplit(address)
    except ValueError:
        raise BadRequest(f"The parameter {param}.fileUri must be an address.", param=f"{param}.fileUri") from None
    host = parsed.hostname or ""
    if parsed.scheme not in ("http", "https") or any(host == h or host.endswith(f".{h}") for h in _GOOGLES_HOSTS):
        raise refusal(f"{param}.fileUri", REFUSED["parts.fileData"])
    kind = _kind(media_type, param) if media_type else "file"
    return Media(kind, media_type, url=address, name=text_in(file, "displayName", f"{param}."))


def _kind(media_type: str, param: str) -> Literal["image", "file", "audio"]:
    major = media_type.partition("/")[0].lower()
    if major == "video":
        raise refusal(param, REFUSED["parts.video"])
    return "image" if major == "image" else "audio" if major == "audio" else "file"
