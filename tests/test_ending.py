"""How a command ends that cannot do what it was asked to."""

from __future__ import annotations

import pytest

from app.commands.ending import Refused, ending


def ended(error: Exception | None) -> int:
    @ending(ConnectionError, KeyError, what="the ledger does not answer: ")
    def command() -> int:
        if error is not None:
            raise error
        return 7

    return command()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 7, ""),
        (Refused("one line\nand another"), 2, "one line\nand another\n"),
        (ConnectionError("gone"), 1, "the ledger does not answer: gone\n"),
    ],
)
def test_what_went_wrong_is_told_and_the_code_says_whose_it_is(
    error: Exception | None, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(error) == code
    assert capsys.readouterr() == ("", told)


def test_a_defect_is_no_end() -> None:
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())
