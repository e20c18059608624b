"""What holds: built-in values, under `defaults.toml`, under `skyward.toml`, under the environment.

Tables are merged key by key, everything else is replaced. Each value remembers where it was said.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from skyward.config.files import Document, Path_, defaults_path, project_path, read
from skyward.errors import ConfigurationError
from skyward.validation import nearest

TABLES: Final = ("options", "providers", "pools")
PREFIX: Final = "SKYWARD_"
_NO_VARIABLES: Final = ("worker", "health_checker")
"""Options that no text can be."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value, where it stands in the tables, and where it was said."""

    path: Path_
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was configured."""

    documents: tuple[Document, ...] = ()
    """The files that exist, weakest first."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that say something, by the option that they set."""

    @property
    def tables(self) -> dict[str, Any]:
        """The tables as they hold."""
        merged: dict[str, Any] = {}
        for document in self.documents:
            merged = _over(merged, document.tables)
        options = {name: _value(text) for name, text in self.environment.items()}
        return _over(merged, {"options": options}) if options else merged

    def origin(self, path: Path_) -> str:
        """Where the value at a path was said: `file:line` or `$VARIABLE`."""
        if len(path) == 2 and path[0] == "options" and path[1] in self.environment:
            return f"${PREFIX}{str(path[1]).upper()}"
        for document in reversed(self.documents):
            if _has(document.tables, path):
                return document.where(path)
        return "built in"

    def entries(self) -> Iterator[Entry]:
        """Every value, in the order of the tables."""
        yield from self._entries((), self.tables)

    def _entries(self, path: Path_, value: Any) -> Iterator[Entry]:
        if isinstance(value, Mapping) and value:
            for key, each in value.items():
                yield from self._entries((*path, key), each)
        else:
            yield Entry(path, value, self.origin(path))


def load(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """What is configured for a program in a folder. Raises ConfigurationError.

    The files are read anew each time: they are small, and a notebook outlives many versions of them.
    """
    from skyward.spec import Options

    variables = os.environ if environment is None else environment
    paths = [defaults_path(), project_path((folder or Path.cwd()).absolute())]
    documents = tuple(read(path) for path in paths if path is not None and path.is_file())
    for document in documents:
        for name in document.tables:
            if name not in TABLES:
                hint = nearest(name, TABLES, cutoff=0.6)
                raise ConfigurationError(
                    f"{document.where((name,))}: there is no table [{name}]{hint}",
                    remedy="write [options], [providers.NAME] or [pools.NAME]; see docs/configuration.md",
                )
            if not isinstance(document.tables[name], dict):
                raise ConfigurationError(
                    f"{document.where((name,))}: {name} must be a table", remedy=f"write [{name}]"
                )
    set_here = {
        name: variables[PREFIX + name.upper()]
        for name in Options.__dataclass_fields__
        if name not in _NO_VARIABLES and PREFIX + name.upper() in variables
    }
    return Settings(documents, set_here)


def _value(text: str) -> Any:
    """A variable's value as TOML has it, and else as the text that it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _over(merged[key], value)
        else:
            merged[key] = value
    return merged


def _has(value: Any, path: Path_) -> bool:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
