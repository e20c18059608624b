"""The bundle: the part of `skyward` that runs on a VM, as one archive.

The operator sends it to every node, so nodes need no access to where `skyward` was installed from, and run
exactly the version that the operator runs. The digest is that of the archive before compression, because
two zlib versions compress the same bytes differently; on the node, `bundle_digest()` gives the same value.
"""

import functools
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

NODE_PARTS = (
    "__init__.py",
    "accelerators.py",
    "errors.py",
    "functions.py",
    "gather.py",
    "image.py",
    "providers.py",
    "runtime.py",
    "shard.py",
    "spec.py",
    "time.py",
    "validation.py",
    "py.typed",
    "wire",
    "agent",
)
"""What goes to the node: top-level modules that import neither cluster, local, console, cli nor contract,
and the packages wire and agent. Nothing here may need more than the standard library, cloudpickle and lz4."""

_PACKAGE = Path(__file__).resolve().parent.parent


def bundle() -> tuple[str, bytes]:
    """Digest and bytes of the archive (tar.gz); it unpacks to a folder for `PYTHONPATH`."""
    archive = _archive()
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0, filename="") as packed:
        packed.write(archive)
    return hashlib.sha256(archive).hexdigest(), out.getvalue()


@functools.cache
def bundle_digest() -> str:
    """The digest of the bundle that this process runs from."""
    return hashlib.sha256(_archive()).hexdigest()


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in _files():
            data = path.read_bytes()
            entry = tarfile.TarInfo(f"skyward/{path.relative_to(_PACKAGE).as_posix()}")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 0
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _files() -> list[Path]:
    files: list[Path] = []
    for part in NODE_PARTS:
        path = _PACKAGE / part
        if path.is_dir():
            files += (file for file in path.rglob("*") if file.suffix in (".py", ".typed", ".sh"))
        elif path.is_file():
            files.append(path)
    return sorted(files)
