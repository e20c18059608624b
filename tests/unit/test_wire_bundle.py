"""The bundle: it is deterministic, and what is in it runs without anything else of ours."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import cloudpickle
import lz4

from skyward.wire.bundle import bundle, bundle_digest

HIDE_SITE = """
import sys
sys.path = [p for p in sys.path if "main/sdk" not in p]
class NoOthers:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "kubernetes", "httpx", "aiohttp", "asyncssh", "rich"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, NoOthers())
"""


def test_bundle_is_the_same_bytes_every_time() -> None:
    assert bundle() == bundle()


def test_bundle_runs_alone_and_knows_its_own_digest(tmp_path: Path) -> None:
    name, data = bundle()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path, filter="data")
        files = [entry.name.removesuffix(".py") for entry in archive if entry.name.endswith(".py")]
        modules = [file.removesuffix("/__init__").replace("/", ".") for file in files]
    for package in (cloudpickle, lz4):
        source = Path(package.__file__).parent
        (tmp_path / source.name).symlink_to(source)
    program = (
        f"{HIDE_SITE}\n"
        "import importlib, skyward, skyward.wire.bundle as b\n"
        f"assert skyward.__file__.startswith({str(tmp_path)!r}), skyward.__file__\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(b.bundle_digest())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name == bundle_digest()


def test_bundle_has_no_part_that_stays_at_home() -> None:
    with tarfile.open(fileobj=io.BytesIO(bundle()[1])) as archive:
        folders = {entry.name.split("/")[1] for entry in archive}
    assert {"wire", "agent", "__init__.py"} <= folders
    assert not folders & {"cluster", "local", "console", "cli", "contract"}
