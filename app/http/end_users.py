"""For which end user a request is: by the header, else by the field that its dialect has for that."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.core.caps import Users
from app.core.errors import BadRequest, LedgerDown
from app.core.users import user_hash
from app.dialects.base import Dialect
from app.http.header_text import meant

HEADER = "x-bursar-user"
MAX_CHARS = 200


def user_of(
    headers: Mapping[str, str],
    members: Mapping[str, msgspec.Raw],
    dialect: Dialect,
    users: Users,
    salt: bytes | None,
) -> str | None:
    """The user as the ledger has it (`core/users`), by these rules; None where none is named. Raises BadRequest, or
    LedgerDown while the salt is not known, for another hash would be another user's."""
    named = named_in(headers)
    if named is None:
        named = dialect.end_user(members)
    if named is None:
        if users.required:
            raise BadRequest(
                "The policy wants to know for which user a request is: name the user in the header X-Bursar-User, or in"
                " the field that this API has for it.",
                param="X-Bursar-User",
            )
        return None
    return hash_of(named, salt)


def hash_of(user: str, salt: bytes | None) -> str:
    """The user's name in the ledger. Raises LedgerDown."""
    if salt is None:
        raise LedgerDown("The ledger's names of users are not known yet, so nothing can be counted for one.")
    return user_hash(user, salt)


def named_in(headers: Mapping[str, str]) -> str | None:
    """The user that the header names. Raises BadRequest."""
    value = headers.get(HEADER)
    if value is None:
        return None
    value = meant(value)
    if not value or len(value) > MAX_CHARS or not value.isprintable():
        raise BadRequest("The header X-Bursar-User must be printable, and not too long.", param="X-Bursar-User")
    return value
