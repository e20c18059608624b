"""What is sent to a machine to make it a node, as one archive for `bootstrap.sh`. Pure.

Values travel as files inside the archive, over standard input: none is ever an argument, where any user of
the machine could read it. The Python environment is named by what is in it, so each image is installed once.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from skyward.wire.digest import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.image import Image, PackageIndex
    from skyward.contract.pool import Worker

BASE_PACKAGES = ("cloudpickle>=3.1.2", "lz4>=4.4.4")
"""What the agent itself needs; the lower bounds are the SDK's."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Plan:
    """The archive, and the digest of the bundle inside by which a running agent is recognised."""

    archive: bytes
    bundle: str


@lru_cache(maxsize=16)
def plan(image: Image, worker: Worker, bundle: tuple[str, bytes]) -> Plan:
    """Everything that `bootstrap.sh` needs, itself included: 120 KB, which the nodes of a pool share."""
    bundle_digest, bundle_bytes = bundle
    contents = environment_files(image)
    settings = {
        "python": image.python,
        "environment": environment_digest(contents),
        "bundle": bundle_digest,
        "slots": str(worker.concurrency),
        "executor": worker.executor,
        "reuse": "" if worker.reuse else "--fresh",
        "apt": "".join(f"{package}\n" for package in image.apt),
        "variables": variables(image),
        "bootstrap.sh": files(__package__).joinpath("bootstrap.sh").read_text(),
    }
    entries = {name: text.encode() for name, text in (contents | settings).items()}
    return Plan(archive(entries | {"bundle.tar.gz": bundle_bytes}), bundle_digest)


def environment_files(image: Image) -> dict[str, str]:
    """The files that say what the Python environment holds."""
    pinned = {canonical(name) for index in image.indexes for name in index.packages}
    free = [line for line in (*BASE_PACKAGES, *image.pip) if requirement_name(line) not in pinned]
    options = [f"--extra-index-url {index.url}" for index in image.indexes if not index.packages]
    made = {
        "python-version": f"{image.python}\n",
        "requirements.txt": "".join(f"{line}\n" for line in (*options, *free)),
    }
    if pinned:
        made["indexes/pyproject.toml"] = pyproject(image.pip, image.indexes)
    return made


def environment_digest(contents: Mapping[str, str]) -> str:
    """The name of an environment, from what it holds."""
    return digest(json.dumps(contents, sort_keys=True).encode())[:24]


def pyproject(pip: Sequence[str], indexes: Sequence[PackageIndex]) -> str:
    """Packages that come from an index of their own and from no other, as uv reads it.

    uv honours such pins for direct dependencies only, so a package that an index lists is one.
    """
    asked = {requirement_name(line): line for line in pip}
    dependencies, sources, sections = [], [], []
    for number, index in enumerate(indexes):
        for package in index.packages:
            dependencies.append(asked.get(canonical(package), package))
            sources.append(
                f"{json.dumps(canonical(package))} = {{ index = {json.dumps(f'index-{number}')} }}"
            )
        if index.packages:
            name, url = json.dumps(f"index-{number}"), json.dumps(index.url)
            sections.append(f"[[tool.uv.index]]\nname = {name}\nurl = {url}\nexplicit = true\n")
    project = f'[project]\nname = "skyward-image"\nversion = "0"\ndependencies = {json.dumps(dependencies)}\n'
    return "\n".join([project, *sections, "[tool.uv.sources]", *sources, ""])


def requirement_name(line: str) -> str:
    """The package that a requirement is about, or an empty text where it is a URL."""
    match = _NAME.match(line.strip())
    return "" if match is None or "://" in line.split(";")[0].split("@")[0] else canonical(match[0])


def canonical(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def variables(image: Image) -> str:
    """Shell assignments of the image's variables; those of commands are evaluated on the node."""
    lines = [f"export {each.name}={shlex.quote(each.value)}" for each in image.env]
    lines += [_found_out(each.name, each.command) for each in image.shell_vars]
    return "".join(f"{line}\n" for line in lines)


def _found_out(name: str, command: str) -> str:
    """Assigns what a command prints; one that fails has all it said, and its status, on standard error."""
    told = f"""{{ echo "${name}"; echo "the command of {name} ended with status $status"; }} >&2"""
    return f"{name}=$(\n{command}\n) || {{ status=$?; {told}; exit 1; }}\nexport {name}"


def archive(entries: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar of files that only their owner may read."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(entries.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
