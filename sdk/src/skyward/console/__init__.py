"""What a person sees while they wait: the same words on a terminal and in a log, only the layout differs.

A `Console` is told what is under way (`update`), what ended (`done`) and what was printed remotely
(`remote`); it never asks anybody anything, and it never keeps quiet for 10 s while something is under way.
"""

import os
import sys
from typing import TextIO

from skyward.console.board import Console, Stream, Subject
from skyward.console.plain import PlainConsole, SilentConsole

__all__ = ["Console", "PlainConsole", "SilentConsole", "Stream", "Subject", "open_console"]


def open_console(mode: bool | str = True, stream: TextIO | None = None) -> Console:
    """The console for `mode` (`Options.console`): live lines on a terminal, plain lines elsewhere."""
    if mode is False or mode == "silent":
        return SilentConsole()
    stream = stream or _stream()
    if mode == "rich" or (mode in (True, "auto") and _is_terminal(stream)):
        from skyward.console.live import LiveConsole

        return LiveConsole(stream)
    return PlainConsole(stream)


def _stream() -> TextIO:
    # A notebook shows stderr on red; there is no pipe to keep clean there.
    return sys.stdout if "ipykernel" in sys.modules else sys.stderr


def _is_terminal(stream: TextIO) -> bool:
    plain = os.environ.get("TERM") == "dumb" or "CI" in os.environ
    return stream.isatty() and not plain
