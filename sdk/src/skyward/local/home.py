"""Folders of the embedded control plane, and nothing else about it.

The state folder carries the version of its own layout, so that a later layout is a new folder. Everything in
it is for its owner alone: files 0600, folders 0700.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from skyward.local.errors import HomeNotWritable

LAYOUT = "v1"
COMPONENTS = ("etcd", "kube-apiserver", "operator")


_LEAST_FREE_BYTES = 16 * 1024 * 1024
"""etcd extends its log by 64 MB at a time, and ends where that is refused."""


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder of one control plane."""

    root: Path

    @classmethod
    def locate(cls) -> "Home":
        """`$SKYWARD_HOME`, else the platform's place for a user's data."""
        base = os.environ.get("SKYWARD_HOME")
        root = Path(base).expanduser() if base else platformdirs.user_data_path("skyward")
        return cls(root.absolute() / "local" / LAYOUT)

    @property
    def shortage(self) -> str:
        """In words that its disk is full, if it is: then nothing here runs well, whatever else is seen."""
        try:
            free = shutil.disk_usage(self.root).free
        except OSError:
            return ""
        if free >= _LEAST_FREE_BYTES:
            return ""
        return f"the disk that holds {self.root} is full ({free:,} bytes are free): make room there"

    @property
    def pki(self) -> Path:
        """Certificates, keys and tokens."""
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        """The data: everything that must survive a restart."""
        return self.root / "etcd"

    @property
    def operator(self) -> Path:
        """The operator's own folder."""
        return self.root / "operator"

    @property
    def status(self) -> Path:
        """What the supervisor last said about itself."""
        return self.root / "status.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def operator_kubeconfig(self) -> Path:
        """The operator's kubeconfig."""
        return self.root / "operator.kubeconfig"

    @property
    def operator_holders(self) -> Path:
        """The names under which the latest operator processes hold the lease, the newest last."""
        return self.root / "operator.holders"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the control plane."""
        return self.root / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "supervisor.lock"

    def log(self, component: str) -> Path:
        """The log file of one component."""
        return self.root / "log" / f"{component}.log"

    def prepare(self) -> None:
        """Create the folders.

        Raises:
            HomeNotWritable: naming the folder, and the variable that moves it.
        """
        for folder in (self.root, self.pki, self.root / "log", self.operator):
            make_folder(folder, variable="SKYWARD_HOME")
        try:
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(b"skyward")
        except OSError as error:
            raise HomeNotWritable(self.root, error, "SKYWARD_HOME") from None  # its words are inside


def cache_root() -> Path:
    """`$SKYWARD_CACHE`, else the platform's place for a user's cache."""
    base = os.environ.get("SKYWARD_CACHE")
    return (Path(base).expanduser() if base else platformdirs.user_cache_path("skyward")).absolute()


def make_folder(folder: Path, *, variable: str) -> None:
    """Create `folder` for its owner only; folders above it get the usual mode.

    Raises:
        HomeNotWritable: with `variable` as the way out.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise HomeNotWritable(folder, error, variable) from None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once, readable by its owner only: no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
