"""Lines that are redrawn in place on a terminal; what has ended stays in the scrollback."""

import sys
from typing import TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from skyward.console.board import Console, Row, Stream, Subject, elapsed
from skyward.console.plain import print_remote

MAX_ROWS = 12


class LiveConsole(Console):
    """Redraws what is under way with rich. Colours follow NO_COLOR and never carry meaning alone."""

    tick_seconds = 0.1

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._terminal = Terminal(file=stream, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._bars: dict[object, tuple[str, str]] = {}
        """Prefix and newest state of lines that functions overwrite again and again, by source."""

    def refresh(self, now: float) -> None:
        rows = self.visible(now)
        if not rows and not self._bars:
            self._stop()
            return
        if self._live is None:
            # Only a stdout that is this terminal may be routed through the display; a pipe keeps its own.
            self._live = Live(
                console=self._terminal,
                auto_refresh=False,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=True,
            )
            self._live.start()
        self._live.update(self._draw(rows, now), refresh=True)

    def tell(self, subject: Subject, text: str) -> None:
        line = Text("✔ ", style="green") if not text.startswith(("✘", "⚠")) else Text()
        line.append(f"{subject} ", style="bold").append(text)
        self._print(line)

    def say(self, text: str) -> None:
        self._print(Text(text))

    def remote(self, prefix: str, text: str, stream: Stream) -> None:
        if stream == "stdout" and not sys.stdout.isatty():
            print_remote(prefix, text, stream)
            return
        self._print(_prefixed(prefix, text))

    def draws(self, stream: Stream) -> bool:
        return stream == "stderr" or sys.stdout.isatty()

    @property
    def has_progress(self) -> bool:
        """Whether lines of functions are redrawn just now."""
        return bool(self._bars)

    def progress(self, source: object, prefix: str, text: str) -> None:
        with self._lock:
            if text:
                self._bars[source] = (prefix, text)
                self._start()
            elif self._bars.pop(source, None) is not None:
                self.refresh(self._clock())
                if not self._bars and not self._rows:
                    self._busy.clear()

    def close(self) -> None:
        self._bars.clear()
        super().close()

    def _print(self, line: Text) -> None:
        with self._lock:
            self._terminal.print(line)

    def _stop(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            live.update(Text())
            live.stop()

    def _draw(self, rows: list[Row], now: float) -> Group:
        table = Table.grid(padding=(0, 1))
        for row in rows[:MAX_ROWS]:
            table.add_row(
                self._spinner.render(now),
                Text(str(row.subject), style="bold"),
                Text(row.text),
                Text(elapsed(now - row.began), style="dim"),
            )
        parts: list[Table | Text] = [table]
        if (more := len(rows) - MAX_ROWS) > 0:
            parts.append(Text(f"  and {more} more"))
        for prefix, text in list(self._bars.values())[:MAX_ROWS]:
            bar = _prefixed(prefix, text)
            bar.no_wrap, bar.overflow = True, "ellipsis"
            parts.append(bar)
        if (more := len(self._bars) - MAX_ROWS) > 0:
            parts.append(Text(f"  and progress of {more} more"))
        return Group(*parts)


def _prefixed(prefix: str, text: str) -> Text:
    """What a function printed, in its own colours."""
    line = Text()
    if prefix:
        line.append(f"{prefix} ", style="cyan")
    return line.append_text(Text.from_ansi(text))
