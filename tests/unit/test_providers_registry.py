"""Adapters are found by entry point; a package that is broken is its own trouble."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from skyward_operator.providers import registry
from skyward_operator.providers.errors import Rejected
from skyward_operator.providers.local.provider import LocalProvider
from skyward_operator.providers.registry import GROUP, Registry

if TYPE_CHECKING:
    from pathlib import Path


def entries(**values: str) -> list[EntryPoint]:
    """Entry points as installed packages have them."""
    return [EntryPoint(name, value, GROUP) for name, value in values.items()]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages bring an adapter, and one of them is broken."""
    local = "skyward_operator.providers.local.provider:LocalProvider"
    found = entries(acme=local, broken="no_such_package_4711:Provider", empty=f"{local}Missing")
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def test_an_adapter_of_another_package_is_found_by_its_name(tmp_path: Path) -> None:
    known = Registry(tmp_path)
    assert known.names == ["acme", "broken", "empty"]
    assert "acme" in known
    assert isinstance(known.provider("acme"), LocalProvider)


def test_one_adapter_is_kept_for_each_account(tmp_path: Path) -> None:
    known = Registry(tmp_path)
    assert known.provider("acme", {"key": "a"}) is known.provider("acme", {"key": "a"})
    assert known.provider("acme", {"key": "a"}) is not known.provider("acme", {"key": "b"})


@pytest.mark.parametrize("name", ["broken", "empty"])
def test_a_broken_package_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(Rejected, match=f"'{name}' .* cannot be loaded: .*; mend or remove its package"):
        Registry(tmp_path).provider(name)


def test_what_was_not_enabled_is_not_there(tmp_path: Path) -> None:
    known = Registry(tmp_path, ["acme"])
    assert "broken" not in known
    with pytest.raises(Rejected, match=r"no adapter for provider 'broken'; it has: acme"):
        known.provider("broken")
