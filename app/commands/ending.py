"""How a command ends that cannot do what it was asked to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from app.commands.terminal import complain

P = ParamSpec("P")


class Refused(Exception):
    """What was asked, the settings or the policy cannot be used; the message says why, a line for each problem."""


def ending(*failures: type[Exception], what: str = "") -> Callable[[Callable[P, int]], Callable[P, int]]:
    """For a command, which returns its exit code: what keeps it from its work is told on stderr. The code is 2 for
    Refused, 1 for `failures`, whose messages stand behind `what`."""

    def told(command: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(command)
        def ended(*args: P.args, **options: P.kwargs) -> int:
            try:
                return command(*args, **options)
            except Refused as problem:
                complain(str(problem))
                return 2
            except failures as error:
                complain(f"{what}{error}")
                return 1

        return ended

    return told
