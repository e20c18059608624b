"""README's list of examples is the list of examples."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_example_is_in_the_list_and_every_one_in_the_list_is_there() -> None:
    listed = re.findall(r"^- \[(examples/\w+\.py)\]\(\1\): ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py"))
