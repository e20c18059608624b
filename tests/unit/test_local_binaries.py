"""Where the binaries are looked for, in which order, and what counts as good enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from skyward.local import binaries, build, download
from skyward.local.errors import UnsupportedPlatform

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any binaries; answers the (empty) cache root."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SKYWARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install(folder: Path, version: str = "v1.36.3") -> Path:
    """Put stand-ins into a folder; the API server says its version as the real one does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (folder / name).write_text(f"#!/bin/sh\necho Kubernetes {version}\n")
        (folder / name).chmod(0o755)
    return folder


def test_assets_folder_comes_first(nothing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = install(tmp_path / "assets")
    install(tmp_path / "bin")
    install(nothing / "controlplane" / build.VERSION)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = binaries.find_binaries()
    assert found is not None
    assert (found.source, found.etcd) == ("KUBEBUILDER_ASSETS", assets / "etcd")


def test_path_comes_before_the_cache(nothing: Path, tmp_path: Path) -> None:
    install(tmp_path / "bin")
    install(nothing / "controlplane" / build.VERSION)
    found = binaries.find_binaries()
    assert found is not None
    assert found.source == "PATH"


@pytest.mark.parametrize("version", [build.VERSION, download.VERSION])
def test_cache_is_used_when_nothing_else_is_there(nothing: Path, version: str) -> None:
    folder = install(nothing / "controlplane" / version)
    found = binaries.find_binaries()
    assert found is not None
    assert found.kube_apiserver == folder / "kube-apiserver"


def test_too_old_binaries_are_passed_over_with_a_reason(nothing: Path, tmp_path: Path) -> None:
    install(tmp_path / "bin", version="v1.20.7")
    install(nothing / "controlplane" / build.VERSION)
    rejected: list[str] = []
    found = binaries.find_binaries(rejected)
    assert found is not None
    assert found.source.startswith("cache")
    assert any("v1.20.7, older than" in reason for reason in rejected)


def test_assets_folder_without_binaries_is_named(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", "/nowhere")
    rejected: list[str] = []
    assert binaries.find_binaries(rejected) is None
    assert any("/nowhere has no etcd" in reason for reason in rejected)


def test_half_a_set_does_not_count(nothing: Path) -> None:
    folder = install(nothing / "controlplane" / build.VERSION)
    (folder / "etcd").unlink()
    assert binaries.find_binaries() is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3\n", (1, 36, 3)),
        ("Kubernetes v1.37.0-beta.1", (1, 37, 0)),
        ("etcd Version: 3.6.8", (3, 6, 8)),
        ("command not found", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert binaries.parse_version(text) == version


@pytest.mark.parametrize(
    ("text", "version"), [("go1.26.8", (1, 26)), ("go1.27rc1", (1, 27)), ("devel +abc", None)]
)
def test_go_versions_are_read(text: str, version: tuple[int, int] | None) -> None:
    assert build.parse_go_version(text) == version


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "riscv64")])
def test_other_platforms_are_refused_by_name(system: str, machine: str) -> None:
    with pytest.raises(UnsupportedPlatform, match=f"{system} on {machine}"):
        binaries.require_supported(system, machine)


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Darwin", "arm64", "darwin-arm64"),
    ],
)
def test_platforms_are_named_as_go_does(system: str, machine: str, name: str) -> None:
    binaries.require_supported(system, machine)
    assert download.target_platform(system, machine) == name
