"""What the benchmark of adaptation says where it lacks something, and which pieces of pages it takes for text."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgec.graph.errors import UserError
from edgec.tools.bench import adapt
from edgec.tools.testing.data import MANUAL


def test_a_book_that_is_not_there_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "book", lambda name, language: (Path("/none.pdf"), f"{name}-{language}"))
    done = CliRunner().invoke(adapt.main)
    assert done.exit_code == 1 and "hint: apt-get install maint-guide-en" in done.output


def test_every_language_has_two_books() -> None:
    assert adapt.book(adapt.GUIDE, "en")[1] == "maint-guide"
    assert adapt.book(adapt.GUIDE, "ja") == (Path("/usr/share/doc/maint-guide-ja/maint-guide.ja.pdf"), "maint-guide-ja")
    assert adapt.book(adapt.REFERENCE, "en")[1] == "debian-reference-en"


def test_pieces_are_text_and_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "book", lambda name, language: (MANUAL, "libtasn1-doc"))
    first, again, other = (adapt.pieces(adapt.GUIDE, "en", 12, seed) for seed in (0, 0, 1))
    assert first.shape == (12, adapt.SIDE, adapt.SIDE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert all(0.03 < (piece < 128).mean() < 0.5 for piece in first)


def test_a_book_without_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt, "book", lambda name, language: (MANUAL, "libtasn1-doc"))
    monkeypatch.setattr(adapt, "_is_text", lambda piece: False)
    with pytest.raises(UserError, match="no page holds running text"):
        adapt.pieces(adapt.GUIDE, "en", 12, 0)
