"""Fixtures of more than one layer: a real control plane, a namespace of one's own, a home of one's own.

`control_plane` is started once in a session by the same code that `skyward local up` runs, in a folder of its
own and without an operator. A test that needs the class for an annotation imports it under TYPE_CHECKING:
`from tests.conftest import ControlPlane`.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.fake.kube_server import eventually

from skyward.contract.names import KINDS
from skyward.local.binaries import ensure_binaries
from skyward.local.home import Home
from skyward.local.servers import Servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from skyward.local.api import Api
    from skyward.local.progress import Step

pytest.register_assert_rewrite("skyward_operator.providers.conformance")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background with Ctrl-C ignored, and the programs that tests interrupt
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """etcd and kube-apiserver with the Skyward kinds, and means to hurt them."""

    server: str
    ca_file: Path
    token: str
    kubeconfig: Path
    operator_kubeconfig: Path
    operator_token: str
    kubectl: Path | None
    servers: Servers

    def api(self) -> Api:
        """A new administrator's connection (synchronous)."""
        return self.servers.api()

    def connections(self) -> int:
        """How many connections this process has to the API server."""
        ours = psutil.Process().net_connections("tcp")
        return sum(bool(one.raddr) and self.server.endswith(f":{one.raddr.port}") for one in ours)

    def stop_api_server(self) -> None:
        """End the API server; etcd and its data stay."""
        if self.servers.api_server is not None:
            self.servers.api_server.stop()

    def kill_api_server(self) -> None:
        """End the API server with SIGKILL, as a crash does."""
        if self.servers.api_server is not None:
            self.servers.api_server.kill()

    def start_api_server(self) -> None:
        """Start it again on the same port, and wait until it is ready."""
        self.servers.start_api_server()
        self.servers.wait_ready()
        with self.api() as api:  # ready does not mean that each kind's cache is filled
            for kind in KINDS:
                api.get(f"/apis/{kind.api_version}/{kind.plural}?limit=1")

    def restart_api_server(self) -> None:
        """Stop it, start it, wait."""
        self.stop_api_server()
        self.start_api_server()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One control plane for the session. Fails, and never skips, when the binaries cannot be had."""

    from skyward.contract.crd import crd_documents
    from skyward.contract.rbac import OPERATOR_RULES
    from skyward.local.bootstrap import bootstrap

    def show(step: Step) -> None:
        print(f"control plane: {step}", flush=True)

    binaries = ensure_binaries(show)
    folder = Path(tempfile.mkdtemp(prefix="skyward-test-"))
    home = Home(folder / "plane")
    home.prepare()
    servers = Servers(home, binaries.etcd, binaries.kube_apiserver)
    try:
        servers.start()
        servers.write_kubeconfigs()
        bootstrap(servers.api, crd_documents(), OPERATOR_RULES)
        yield ControlPlane(
            server=servers.server,
            ca_file=servers.authority,
            token=servers.tokens.admin,
            kubeconfig=home.kubeconfig,
            operator_kubeconfig=home.operator_kubeconfig,
            operator_token=servers.tokens.operator,
            kubectl=binaries.kubectl,
            servers=servers,
        )
    finally:
        servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """The name of a new, empty namespace. It stays: without a controller manager none is ever deleted."""
    name = f"test-{secrets.token_hex(4)}"
    with control_plane.api() as api:
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.apply(f"/api/v1/namespaces/{name}", manifest)
    return name


@pytest.fixture
async def hung_up(control_plane: ControlPlane) -> AsyncIterator[None]:
    """Ask for it before anything that watches: afterwards its last connections end while their loop runs.

    One that is cancelled during its TLS handshake closes by itself a moment later, if the loop lives on.
    """
    before = control_plane.connections()
    yield
    await eventually(lambda: control_plane.connections() <= before)


@pytest.fixture
def local_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """A factory: each call makes an empty SKYWARD_HOME with a short path, and points the environment at it.

    The cache of binaries stays the machine's. Whatever still runs in such a home ends with the test.
    """
    folders: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="sky-"))
        folders.append(folder)
        monkeypatch.setenv("SKYWARD_HOME", str(folder))
        return folder

    yield make
    from skyward.local.processes import find_by_argument, stop_all

    for folder in folders:
        stop_all(find_by_argument(str(folder), within=True), grace_seconds=5.0)
        shutil.rmtree(folder, ignore_errors=True)
