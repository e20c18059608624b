"""docs/errors.md says what the code says, about every class and every reason."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest

from skyward import errors
from skyward.contract.meanings import MEANING
from skyward.contract.reasons import NEXT_STEP, NodeReason, PoolReason, TaskReason
from skyward.errors import SkywardError
from skyward.local import errors as local_errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLASSES = [
    each
    for module in (errors, local_errors)
    for _, each in inspect.getmembers(module, inspect.isclass)
    if issubclass(each, SkywardError) and each.__module__ == module.__name__ and each is not SkywardError
]


def test_the_page_is_what_the_code_says() -> None:
    written = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert written == runpy.run_path(str(DOCS / "write_errors.py"))["render"](), "run `make crds`"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_a_meaning_and_a_remedy_on_the_page(kind: type[SkywardError]) -> None:
    meaning, _, remedy = (inspect.getdoc(kind) or "").partition("\n\n")
    assert meaning
    assert remedy
    assert f"`{kind.__name__}` |" in (DOCS / "errors.md").read_text(encoding="utf-8")


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    words = {str(word) for kind in (PoolReason, NodeReason, TaskReason) for word in kind}
    assert set(MEANING) == words == set(NEXT_STEP)
