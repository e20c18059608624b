"""The two files, and in which line of them something stands.

`~/.skyward/defaults.toml` is for all of a person's projects. `skyward.toml` is for one: it is looked for in
the current folder and in those above it, up to the root of a repository.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyward.errors import ConfigurationError

PROJECT = "skyward.toml"
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")

type Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """What one file says."""

    path: Path
    tables: Mapping[str, Any]
    lines: Mapping[Path_, int] = field(default_factory=dict)
    """The line, from 1, in which a value or a table begins."""

    def where(self, path: Path_) -> str:
        """`file:line` of a value, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path}:{self.lines[path]}" if path else str(self.path)


def defaults_path() -> Path:
    """Where the file for all of a person's projects is, whether it exists or not."""
    return Path.home() / ".skyward" / "defaults.toml"


def project_path(folder: Path) -> Path | None:
    """The nearest `skyward.toml` from a folder upwards, not beyond the repository that the folder is in."""
    for each in (folder, *folder.parents):
        if (each / PROJECT).is_file():
            return each / PROJECT
        if (each / ".git").exists():
            return None
    return None


def read(path: Path) -> Document:
    """What a file says. Raises ConfigurationError, with the line, for one that is no TOML."""
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return Document(path, tomllib.loads(text), _lines(text))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f":{found[1]}:{found[2]}" if found else f":{len(text.splitlines())}"
        words = re.sub(r" \(at .*\)", "", str(error))
        raise ConfigurationError(
            f"{path}{place}: {words}", remedy="correct the file; see https://toml.io"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}", remedy="correct the file, or remove it"
        ) from None


def _lines(text: str) -> dict[Path_, int]:
    lines: dict[Path_, int] = {}
    for path, number in _places(text):
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _places(text: str) -> Iterator[tuple[Path_, int]]:
    """Paths and lines of headers and keys. A line in a text of several lines may be taken for one: then a
    place in a message is wrong, and nothing else."""
    table: Path_ = ()
    counts: dict[Path_, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                position = counts[table] = counts.get(table, -1) + 1
                table = (*table, position)
            found = table
        elif key := _KEY.match(line):
            found = (*table, *_parts(key[1]))
        else:
            continue
        yield found, number


def _parts(dotted: str) -> Path_:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
