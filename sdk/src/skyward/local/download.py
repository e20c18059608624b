"""Download of the envtest archive: etcd, kube-apiserver and kubectl in one file, for tests.

The index is envtest-releases.yaml in https://github.com/kubernetes-sigs/controller-tools; the
version and its SHA-512 are pinned here, so that the index does not have to be asked or trusted.
"""

import hashlib
import platform
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path, PurePosixPath
from typing import IO

from skyward.local.progress import Progress, Report, working

VERSION = "v1.36.2"
_SHA512 = {
    "linux-amd64": "ea743186c8a799f5cf8faf16969f86189d003cb7d130e0ac4b58789f1e5748dc"
    "f30ebe91c837a10d5ac415383da3e10b9e64d65785c938c23e739781cfb76f08",
    "linux-arm64": "2d72ee985a8e262a3c57dc9f7f0fd891f6a8c7bf7ebaa2db6dc6d8eac8ae2818"
    "1afe51c1f368b67756cdb40b10de9b205609e1726e5f27f7c6d824dd9c6649ac",
    "darwin-arm64": "9278f9e5af556b2f1f2d139769c1f0d717c7b4426917fdebdba898bcb725a916"
    "e4910d6160886194ff9be9589ea7c5c32c2b8ae0754703874b7c8ba8ddfc41ce",
}
_URL = "https://github.com/kubernetes-sigs/controller-tools/releases/download/envtest-{version}/{file}"
_WANTED = ("etcd", "kube-apiserver", "kubectl")
_CONNECT_SECONDS = 8.0
_CHUNK = 256 * 1024


class DownloadFailed(Exception):
    """The archive could not be had; the text says which and why."""


def fetch(folder: Path, report: Report) -> None:
    """Put the binaries into `folder`.

    Raises:
        DownloadFailed: no archive for this platform, no network, a wrong checksum, or a damaged archive.
    """
    target = target_platform(platform.system(), platform.machine())
    expected = _SHA512.get(target)
    if expected is None:
        raise DownloadFailed(f"download: there is no pinned envtest archive for {target}")
    file = f"envtest-{VERSION}-{target}.tar.gz"
    url = _URL.format(version=VERSION, file=file)
    try:
        with (
            working(report, f"downloading {file}", "connecting") as progress,
            tempfile.TemporaryFile() as archive,
        ):
            digest = _download(url, archive, progress)
            if digest != expected:
                raise DownloadFailed(f"download: {url} has SHA-512 {digest[:16]}…, expected {expected[:16]}…")
            progress.say("checksum is right, unpacking", now=True)
            unpack(archive, folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DownloadFailed(f"download: {url}: {error}") from error


def target_platform(system: str, machine: str) -> str:
    """Name a platform as Go does, for example `linux-amd64`."""
    processors = {"x86_64": "amd64", "aarch64": "arm64"}
    return f"{system.lower()}-{processors.get(machine.lower(), machine.lower())}"


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Take the wanted binaries out of a tar.gz, whatever folder they are in there.

    Raises:
        DownloadFailed: one of them is missing.
    """
    archive.seek(0)
    missing = set(_WANTED)
    with tarfile.open(fileobj=archive, mode="r:gz") as members:
        for member in members:
            name = PurePosixPath(member.name).name
            source = members.extractfile(member) if name in missing and member.isfile() else None
            if source is None:
                continue
            with source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            (folder / name).chmod(0o755)
            missing.discard(name)
    if missing:
        raise DownloadFailed(f"download: the archive has no {', '.join(sorted(missing))}")


def _download(url: str, target: IO[bytes], progress: Progress) -> str:
    digest = hashlib.sha512()
    request = urllib.request.Request(url, headers={"User-Agent": "skyward"})  # noqa: S310 (the scheme is ours)
    with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as response:  # noqa: S310
        size = int(response.headers.get("Content-Length") or 0)
        done = 0
        while chunk := response.read(_CHUNK):
            target.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            whole = f" of {size / 1e6:.0f}" if size else ""
            progress.say(f"{done / 1e6:.0f}{whole} MB")
    return digest.hexdigest()
