"""Where etcd and kube-apiserver come from.

They are looked for in `KUBEBUILDER_ASSETS`, on the PATH and in the cache; else downloaded from the envtest
releases, whose checksum is pinned here; else built from the Go module that this package carries. Only what
was checked or built here enters the cache, under its version, so that it happens once per machine.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyward.local import build, download
from skyward.local.errors import NoBinaries, UnsupportedPlatform
from skyward.local.home import cache_root, make_folder
from skyward.local.locks import only_one
from skyward.local.progress import Report, silent

type Version = tuple[int, int, int]

OLDEST: Version = (1, 32, 0)
"""The oldest Kubernetes whose validation language has all that the resource definitions use."""

_WAYS: Sequence[tuple[str, Callable[[Path, Report], None]]] = (
    (download.VERSION, download.fetch),
    (build.VERSION, build.build),
)
"""Ways to fill the cache in the order in which they are tried, and the version that each brings."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Executables that belong together."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path | None
    source: str
    """Where they were found, in words."""

    @classmethod
    def in_folder(cls, folder: Path, source: str) -> "Binaries | None":
        """Answer the binaries in `folder` if both servers are there."""
        etcd, server, kubectl = (folder / name for name in ("etcd", "kube-apiserver", "kubectl"))
        if not (_is_executable(etcd) and _is_executable(server)):
            return None
        return cls(etcd, server, kubectl if _is_executable(kubectl) else None, source)


def ensure_binaries(report: Report = silent) -> Binaries:
    """Find the binaries, or get them.

    Raises:
        UnsupportedPlatform: there are none for this system.
        NoBinaries: every way failed; the message lists each and what to do.
        HomeNotWritable: the cache folder cannot be used.
    """
    rejected: list[str] = []
    found = find_binaries(rejected)
    if found is not None:
        return found
    require_supported(platform.system(), platform.machine())
    folder = cache_root() / "controlplane"
    make_folder(folder, variable="SKYWARD_CACHE")
    with only_one(folder / "fill.lock", report, "waiting for another process that gets the servers"):
        # whoever held the lock before has filled the cache
        return find_binaries() or _fill(folder, report, rejected)


def find_binaries(rejected: list[str] | None = None) -> Binaries | None:
    """Look in `KUBEBUILDER_ASSETS`, the PATH and the cache; why one was not taken goes to `rejected`."""
    reasons = [] if rejected is None else rejected
    return _from_assets(reasons) or _from_path(reasons) or _from_cache(reasons)


def require_supported(system: str, machine: str) -> None:
    """Raise `UnsupportedPlatform` unless this is Linux or macOS on a 64-bit processor."""
    if system not in ("Linux", "Darwin") or machine.lower() not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise UnsupportedPlatform(f"{system} on {machine}")


def parse_version(text: str) -> Version | None:
    """Read `Kubernetes v1.36.3` and the like."""
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _from_assets(rejected: list[str]) -> Binaries | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        rejected.append("KUBEBUILDER_ASSETS: not set")
        return None
    found = Binaries.in_folder(Path(folder), "KUBEBUILDER_ASSETS")
    if found is None:
        rejected.append(f"KUBEBUILDER_ASSETS: {folder} has no etcd and kube-apiserver")
        return None
    return _new_enough(found, rejected)


def _from_path(rejected: list[str]) -> Binaries | None:
    etcd, server, kubectl = (shutil.which(name) for name in ("etcd", "kube-apiserver", "kubectl"))
    if not (etcd and server):
        rejected.append("PATH: " + " and ".join(_missing(("etcd", etcd), ("kube-apiserver", server))))
        return None
    found = Binaries(Path(etcd), Path(server), Path(kubectl) if kubectl else None, "PATH")
    return _new_enough(found, rejected)


def _from_cache(rejected: list[str]) -> Binaries | None:
    folder = cache_root() / "controlplane"
    for version in (build.VERSION, download.VERSION):
        found = Binaries.in_folder(folder / version, f"cache, {version}")
        if found is not None:
            return found
    rejected.append(f"cache: nothing in {folder}")
    return None


def _missing(*found: tuple[str, str | None]) -> list[str]:
    return [f"no {name}" for name, path in found if path is None]


def _new_enough(found: Binaries, rejected: list[str]) -> Binaries | None:
    try:
        answer = subprocess.run(
            [found.kube_apiserver, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        rejected.append(f"{found.source}: {found.kube_apiserver} does not run ({error})")
        return None
    version = parse_version(answer)
    if version is None or version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        rejected.append(f"{found.source}: {found.kube_apiserver} is {answer.strip()}, older than {oldest}")
        return None
    return found


def _fill(folder: Path, report: Report, attempts: list[str]) -> Binaries:
    for version, way in _WAYS:
        target = folder / version
        unfinished = folder / f".{version}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        try:
            way(unfinished, report)
        except (download.DownloadFailed, build.BuildFailed) as error:
            attempts.append(str(error))
            continue
        finally:
            if not Binaries.in_folder(unfinished, ""):
                shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        found = Binaries.in_folder(target, f"cache, {version}")
        if found is not None:
            return found
    raise NoBinaries(attempts, build.GO_VERSION_TEXT)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
