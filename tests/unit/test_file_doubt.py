"""Identity of a file that is reopened by name."""

from __future__ import annotations

import pytest

from aiod.engine.handles import _doubt


@pytest.mark.parametrize(
    ("file", "before", "said"),
    [
        ((1, 2, 3), (1, 2, 3), ""),
        ((1, 2, 3), (1, 2, 4), "another file"),
        ((1, 2, 3), (1, 3, 3), "another file"),
        ((1, 2, 3), (2, 2, 3), "another file"),
        ((1, 2, 0), (1, 2, 0), "cannot tell"),
        ((1, 2, 3), (1, 2, 0), "another file"),
    ],
)
def test_a_file_is_the_same_only_if_its_known_identity_is_equal(
    file: tuple[int, int, int], before: tuple[int, int, int], said: str
) -> None:
    doubt = _doubt(file, before)
    assert said in doubt
    assert bool(doubt) is bool(said)
