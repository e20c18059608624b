"""Lines of JSON as they come over the wire, cut anywhere.

A line ends with a newline and nothing else. Text inside of JSON may hold every other character at which
Unicode ends a line (U+2028, U+0085, form feed, …), so lines are looked for in bytes and never in text.
"""

from collections.abc import Iterable, Iterator


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream, without empty ones. One that is not ended was cut off, and is left out."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
