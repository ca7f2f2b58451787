"""The reply to a request to count tokens (https://platform.claude.com/docs/en/api/messages/count_tokens)."""

from __future__ import annotations


def count_reply(tokens: int) -> bytes:
    """How many input tokens a request has."""
    return b'{"input_tokens":%d}' % tokens
