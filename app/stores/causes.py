"""Why a provider or Redis could not be reached, for whoever runs the gateway; in fixed words, or the system's own.

They name no host and quote nothing, for decision records are shown to clients, too.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator

_ANOTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH, whose texts name the host
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was made from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def unreachable(error: BaseException) -> str:
    """Why connecting failed; "" where nothing is known of it."""
    told = [cause for cause in causes_of(error) if isinstance(cause, OSError)]
    return _said(told[-1]) if told else ""


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _ANOTHER_NAME:
            return "its certificate is for another name"
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return "no TLS is spoken there" if reason in _NO_TLS else f"TLS failed: {reason.lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return "its name does not resolve"
    # Where several addresses were tried, each error is told in one text. Texts of event loops name addresses.
    number = error.errno or next((int(found) for found in _ERRNO.findall(str(error))), 0)
    if number:
        return os.strerror(number)
    return "connecting took too long" if isinstance(error, TimeoutError) else "the connection was lost"
