"""Lines of the pages that people read in an editor are short enough for it; tables of figures may be wider."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
COLUMNS: Final = 120
PAGES: Final = sorted([*ROOT.glob("*.md"), ROOT / "docs/architecture.md", *(ROOT / "docs/architecture").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_is_wider_than_the_code_may_be(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert [f"{number}: {line}" for number, line in enumerate(lines, 1) if len(line) > COLUMNS] == []
