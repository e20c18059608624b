"""Why there is no embedded control plane, by what the person should do.

ControlPlaneError (skyward.errors)
└── LocalError
    ├── UnsupportedPlatform   neither Linux nor macOS on a known processor
    ├── NoBinaries            etcd and kube-apiserver could not be found, downloaded or built
    ├── HomeNotWritable       the state or cache folder cannot be used
    ├── StartFailed           a process did not come up; its last lines are in the message
    ├── NotRunning            the command needs a running control plane
    ├── NewerControlPlane     a newer skyward started the one that runs
    └── NodesCostMoney        `down` would leave machines that are paid for
"""

from collections.abc import Sequence
from pathlib import Path

from skyward.errors import ControlPlaneError


class LocalError(ControlPlaneError):
    """The embedded control plane cannot be used.

    Do what the message says; `skyward local logs` has more.
    """

    default_reason = "LocalControlPlane"


class UnsupportedPlatform(LocalError):
    """The embedded control plane does not run here.

    Use Linux or macOS (on Windows: WSL), or a cluster.
    """

    def __init__(self, platform: str) -> None:
        super().__init__(
            f"the embedded control plane does not run on {platform}",
            remedy="use Linux or macOS (on Windows: WSL), "
            "or set KUBECONFIG to a cluster that serves skyward.dev",
        )


class NoBinaries(LocalError):
    """No way led to etcd and kube-apiserver; every way that was tried is listed.

    Install Go, or set `KUBEBUILDER_ASSETS`, or allow access to a registry: the message lists what was
    tried.
    """

    def __init__(self, attempts: Sequence[str], go: str) -> None:
        tried = "\n".join(f"  - {attempt}" for attempt in attempts)
        super().__init__(
            f"etcd and kube-apiserver could not be found, downloaded or built:\n{tried}",
            remedy=f"do one of these: install Go {go} or newer (https://go.dev/dl) and try again; "
            "set KUBEBUILDER_ASSETS to a folder with both binaries (`setup-envtest use` makes one); "
            "allow access to github.com, or to a PyPI and a Go module proxy; "
            "or set KUBECONFIG to a cluster that serves skyward.dev",
        )


class HomeNotWritable(LocalError):
    """A folder that the control plane needs cannot be written.

    Make the folder writable, or set `SKYWARD_HOME` (or `SKYWARD_CACHE`) to another one.
    """

    def __init__(self, path: Path, cause: OSError, variable: str) -> None:
        super().__init__(
            f"{path} cannot be used: {cause.strerror or cause}",
            remedy=f"make it writable for you and free some space, or set {variable} to another folder",
        )


class StartFailed(LocalError):
    """A process of the control plane did not come up.

    Read the lines shown; `skyward local down` and `up` start afresh and keep the data.
    """

    def __init__(self, what: str, log: Path, tail: str) -> None:
        lines = "".join(f"\n  | {line}" for line in tail.splitlines())
        super().__init__(
            f"{what}{lines}",
            remedy=f"the logs are in {log.parent}; "
            "`skyward local down` and then `skyward local up` starts afresh and keeps the data",
        )


class NotRunning(LocalError):
    """There is no running control plane to talk to.

    Run `skyward local up`.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"no embedded control plane is running (its folder is {home})", remedy="run `skyward local up`"
        )


class NewerControlPlane(LocalError):
    """A newer version of skyward owns the running control plane; it is not touched.

    Install that version here, or stop the control plane from there.
    """

    def __init__(self, running: str, mine: str) -> None:
        super().__init__(
            f"the running control plane was started by skyward {running}, and this is skyward {mine}",
            remedy=f"`pip install --upgrade skyward=={running}` here, or stop it with `skyward local down` "
            "from that installation, or set SKYWARD_HOME to have one of your own",
        )


class NodesCostMoney(LocalError):
    """Machines that are, or may be, paid for would be left without anybody who ends them.

    Delete the pools first; `--force` says what it leaves.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        listed = "\n".join(f"  - {line}" for line in lines)
        super().__init__(
            f"the control plane still looks after machines that cost money:\n{listed}",
            remedy="delete their pools first (`kubectl delete skp NAME`) and wait until the nodes are gone; "
            "`skyward local down --force` stops the control plane, and the machines run, and cost, on",
        )
