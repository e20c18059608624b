"""Finds provider adapters by entry point (`skyward.providers`) and keeps one per name and credentials."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from skyward_operator.providers.contract import Provider, Setup
from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

GROUP = "skyward.providers"

type Account = tuple[str, tuple[tuple[str, str], ...]]


class Registry:
    """The providers that this operator may use; `enabled` empty is every installed one."""

    def __init__(self, data_dir: Path, enabled: Iterable[str] = ()) -> None:
        self._data_dir = data_dir
        wanted = set(enabled)
        self._entries: dict[str, EntryPoint] = {
            entry.name: entry for entry in entry_points(group=GROUP) if not wanted or entry.name in wanted
        }
        self._open: dict[Account, Provider] = {}

    @property
    def names(self) -> list[str]:
        """The providers there are."""
        return sorted({*self._entries, *(name for name, _ in self._open)})

    def __contains__(self, name: str) -> bool:
        return name in self._entries or (name, ()) in self._open

    def missing(self, name: str) -> str:
        """A name that is not known, with those that are near it and those there are, for a message."""
        near = difflib.get_close_matches(name, self.names, 3)
        meant = f" (did you mean {', '.join(near)}?)" if near else ""
        return f"{name!r}{meant}; it has: {', '.join(self.names)}"

    def add(self, provider: Provider) -> None:
        """Use this provider under its name, without credentials."""
        self._open[provider.name, ()] = provider

    def provider(self, name: str, credentials: Mapping[str, str] | None = None) -> Provider:
        """The adapter for a name. Raises Rejected, with what there is, for an unknown one, and Unauthorized
        for credentials that lack something."""
        account = (name, tuple(sorted((credentials or {}).items())))
        if account not in self._open:
            entry = self._entries.get(name)
            if entry is None:
                raise Rejected(f"the operator has no adapter for provider {self.missing(name)}")
            self._open[account] = load(entry)(Setup(self._data_dir, dict(credentials or {})))
        return self._open[account]

    async def aclose(self) -> None:
        """Close every adapter; machines stay."""
        for provider in self._open.values():
            await provider.aclose()
        self._open.clear()


def load(entry: EntryPoint) -> Callable[[Setup], Provider]:
    """The adapter's class. Raises Rejected if its package is broken: that is no bug of the operator's."""
    try:
        adapter: Callable[[Setup], Provider] = entry.load()
    except (ImportError, AttributeError) as error:
        text = f"the adapter for provider {entry.name!r} ({entry.value}) cannot be loaded: {error}"
        raise Rejected(f"{text}; mend or remove its package") from error
    return adapter
