"""For which user of its application a request of OpenAI's dialects is.

`user` is deprecated in favour of `safety_identifier`, which wins where a client sends both:
https://platform.openai.com/docs/api-reference/chat/create#chat-create-safety_identifier
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.dialects.openai_chat.fields import field_of

FIELDS = ("safety_identifier", "user")
_optional_string = msgspec.json.Decoder(str | None)


def end_user(members: Mapping[str, msgspec.Raw]) -> str | None:
    """The user; None where none is named. Raises BadRequest."""
    for name in FIELDS:
        if name in members:
            found: str | None = field_of(_optional_string, members, name)
            if found:
                return found
    return None
