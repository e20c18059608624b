"""`python docs/write_errors.py` writes errors.md, beside it, from the code: classes, reasons, remedies."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from skyward import errors
from skyward.contract.meanings import MEANING
from skyward.contract.reasons import NEXT_STEP, NodeReason, PoolReason, TaskReason
from skyward.errors import RemoteTraceback, SkywardError
from skyward.local import errors as local_errors
from skyward.results import ERROR_OF_REASON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE = Path(__file__).with_name("errors.md")
KINDS = {"pool": PoolReason, "node": NodeReason, "task": TaskReason}
HEAD = """<!-- Written by `make crds` from skyward.errors and skyward.contract; do not edit. -->
# Errors: what they mean and what to do

Every message says what happened, to which object, and, behind the arrow, what to do next. Programs catch
classes (`except sky.TaskTimeout`); the word in `error.reason` is the one in the object's status, where
`kubectl get` and `kubectl describe` show it.

An exception that your function raises arrives as itself, with the traceback from the node as its cause. What
would end a process (`sys.exit()`, `KeyboardInterrupt`) arrives as `RemoteError` and never ends your program.

Every error of this package has `.reason`, `.task`, `.node` and `.attempts`: how often the call that failed
was begun, and 0 where it never was; of an error about a whole Task, all its calls together. An exception of
your own is left as it is: a note on it (`__notes__`) says node, task and, from the second on, which attempt
it was.
"""
FOOT = """
Wrong fields and values in `sky.Compute(...)` and its parts are `TypeError` and `ValueError`, raised where
they stand. `future.cancel()` ends in `concurrent.futures.CancelledError`.
"""


def render() -> str:
    """The whole page."""
    return "\n".join(
        [
            HEAD,
            "## In Python",
            "",
            "| Class | Meaning | What to do | Reasons |",
            "|---|---|---|---|",
            *_classes(),
            FOOT,
            "## Reasons for which there is something to do",
            "",
            *_reasons(well=False),
            "",
            "## Reasons that pass by themselves",
            "",
            *_reasons(well=True),
            "",
        ]
    )


def _classes() -> Iterator[str]:
    for depth, kind in _tree(SkywardError):
        meaning, _, remedy = (inspect.getdoc(kind) or "").partition("\n\n")
        words = sorted(str(reason) for reason, each in ERROR_OF_REASON.items() if each is kind)
        name = f"{'&emsp;' * depth}`{kind.__name__}`"
        yield f"| {name} | {_line(meaning)} | {_line(remedy)} | {', '.join(words)} |"


def _tree(kind: type[Exception], depth: int = 0) -> Iterator[tuple[int, type[Exception]]]:
    for sub in kind.__subclasses__():
        if sub.__module__ in (errors.__name__, local_errors.__name__) and sub is not RemoteTraceback:
            yield depth, sub
            yield from _tree(sub, depth + 1)


def _reasons(*, well: bool) -> Iterable[str]:
    yield "| Reason | Seen on | Meaning | What to do |"
    yield "|---|---|---|---|"
    for word in sorted(MEANING):
        remedy = NEXT_STEP[word]
        if remedy.startswith("Nothing to do") is well:
            seen = ", ".join(name for name, kind in KINDS.items() if word in {str(each) for each in kind})
            yield f"| {word} | {seen} | {MEANING[word]} | {_line(remedy)} |"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
