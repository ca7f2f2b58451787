"""What `metadata.user_id` says: an opaque id of whoever uses the application, as its documentation has it; Claude Code
puts its session there, too.

Until 2.1.77 that is `user_DEVICE_account_ACCOUNT_session_SESSION`, since then a JSON string of `device_id`,
`account_uuid` and `session_id`. The account is empty where it is used with a key.
Sources: https://platform.claude.com/docs/en/api/messages/create (`metadata.user_id`),
https://github.com/ding113/claude-code-hub/pull/939, https://github.com/coder/aibridge/pull/241
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from app.core.raw import UNREADABLE
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.parse import MAX_TASK_ID_CHARS

_OLD_SESSION = re.compile(r"_session_([0-9A-Za-z-]+)$")
_OLD = re.compile(r"user_(?P<device>.*?)_account_(?P<account>.*)_session_[0-9A-Za-z-]+", re.DOTALL)


class _Session(msgspec.Struct):
    session_id: str | None = None


class _Person(msgspec.Struct):
    session_id: Any = None
    account_uuid: Any = None
    device_id: Any = None


_session = msgspec.json.Decoder(_Session)
_person = msgspec.json.Decoder(_Person)
_metadata = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_optional_string = msgspec.json.Decoder(str | None)


def user_id_in(members: Mapping[str, msgspec.Raw]) -> str | None:
    """`metadata.user_id` of a request. Raises BadRequest."""
    metadata = field_of(_metadata, members, "metadata") if "metadata" in members else None
    if not metadata or "user_id" not in metadata:
        return None
    found: str | None = field_of(_optional_string, metadata, "user_id", prefix="metadata.")
    return found


def session_of(user_id: str) -> str | None:
    """The session that Claude Code names in it: in a JSON string, or at the end of a plain one."""
    if user_id.startswith("{"):
        try:
            found = _session.decode(user_id).session_id
        except UNREADABLE:
            return None
    else:
        match = _OLD_SESSION.search(user_id)
        found = match[1] if match else None
    if not found or len(found) > MAX_TASK_ID_CHARS or not found.isprintable() or "|" in found:
        return None
    return found


def person_of(user_id: str) -> str | None:
    """Whom it names: of Claude Code's the account, else the device, and never the session, or each would be a user of
    its own. Any other id is taken whole. None: nobody."""
    if user_id.startswith("{"):
        try:
            found = _person.decode(user_id)
        except UNREADABLE:
            return user_id
        if found.session_id is None:
            return user_id
        return next((one for one in (found.account_uuid, found.device_id) if isinstance(one, str) and one), None)
    match = _OLD.fullmatch(user_id)  # nothing less: an application's own ids may end in a session, too
    return user_id or None if match is None else match["account"] or match["device"] or None
