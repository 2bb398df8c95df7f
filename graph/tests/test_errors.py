"""What errors print, whatever stands in the names they quote."""

import pytest

from edgec.graph.errors import MAX_LINE, InternalError, UserError


def test_the_form():
    error = UserError("E0103", "two lines:\n  of it", where="m.onnx", hint="do this")
    assert str(error) == "error[E0103]: two lines:\n  of it\n  --> m.onnx\nhint: do this"


def test_names_cannot_steer_a_terminal():
    assert str(UserError("E0103", "`\x1b[31m\r\x00\u202e` é 漢")) == "error[E0103]: `\\x1b[31m\\x0d\\x00\\x202e` é 漢"


def test_lines_end():
    first, second = str(UserError("E0103", "a" * 3000, hint="b" * 10)).splitlines()
    assert (
        first.endswith(f"... ({3000 + len('error[E0103]: ') - MAX_LINE} more characters)")
        and len(first) < MAX_LINE + 40
    )
    assert second == "hint: bbbbbbbbbb"


def test_codes_are_those_of_the_list():
    with pytest.raises(InternalError, match="E9999"):
        UserError("E9999", "")
