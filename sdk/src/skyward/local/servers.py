"""etcd and kube-apiserver of one home: their flags, and the order in which they start and stop.

The API server needs etcd to stop quickly, so it always ends first. The flags are those of etcd 3.6 and
Kubernetes 1.36.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyward.local.api import Api
from skyward.local.errors import StartFailed
from skyward.local.home import Home
from skyward.local.kubeconfig import write_kubeconfig
from skyward.local.pki import Pki, ensure_pki
from skyward.local.ports import LOOPBACK, free_ports
from skyward.local.processes import Child, Spec
from skyward.local.tokens import ADMIN_USER, OPERATOR_USER, Tokens, ensure_tokens

POLL_SECONDS = 0.03
_START_ATTEMPTS = 3
START_SECONDS = 90.0
"""Three seconds on an idle laptop; a machine that is busy with other things may take twenty."""
PORT_TAKEN = "address already in use"


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports of one control plane."""

    api: int
    etcd: int
    etcd_peer: int

    @classmethod
    def choose(cls, preferred: "Ports | None") -> "Ports":
        """Free ports, the preferred ones where they are free."""
        api, etcd, peer = free_ports(3, preferred.numbers if preferred else ())
        return cls(api, etcd, peer)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Ports | None":
        """The ports with these numbers, if they are three."""
        return cls(*numbers) if len(numbers) == 3 else None

    @property
    def numbers(self) -> tuple[int, int, int]:
        """All of them."""
        return self.api, self.etcd, self.etcd_peer


class Servers:
    """The two servers of a control plane, as child processes of this one."""

    def __init__(self, home: Home, etcd: Path, kube_apiserver: Path, preferred: Ports | None = None) -> None:
        self.home = home
        self.tokens: Tokens = ensure_tokens(home.pki)
        self._pki: Pki = ensure_pki(home.pki)
        self._binaries = (etcd, kube_apiserver)
        self._preferred = preferred
        self.choose_ports()
        self.etcd: Child | None = None
        self.api_server: Child | None = None

    @property
    def authority(self) -> Path:
        """Certificate of the authority that signed the servers' certificate."""
        return self._pki.authority

    def api(self) -> Api:
        """A new administrator's connection."""
        return Api(self.server, self.authority, self.tokens.admin)

    def start(self, *, timeout: float = START_SECONDS, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Start both and wait until the API server answers that it is ready.

        A port that was taken in the meantime is replaced, and everything is tried again.

        Raises:
            StartFailed: with the last lines of the log of the process that did not come up.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            self.start_etcd()
            self.start_api_server()
            try:
                self.wait_ready(timeout=timeout, cancelled=cancelled)
            except StartFailed as error:
                self.stop()
                if attempt == _START_ATTEMPTS or PORT_TAKEN not in str(error):
                    raise
                self.choose_ports()
            else:
                return

    def wait_ready(
        self, *, timeout: float = START_SECONDS, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until the API server that was started here is ready.

        Raises:
            StartFailed: one of the two ended, it was cancelled, or the time was over.
        """
        deadline = time.monotonic() + timeout
        children = [child for child in (self.etcd, self.api_server) if child is not None]
        with self.api() as api:
            while not api.is_ready():
                for child in children:
                    if not child.is_running:
                        raise _failed(child, f"{child.spec.name} did not start: {child.exit_text}")
                if cancelled():
                    raise _failed(children[-1], "the start was cancelled")
                if time.monotonic() > deadline:
                    raise _failed(children[-1], f"not ready after {timeout:.0f} s")
                time.sleep(POLL_SECONDS)

    def is_ready(self) -> bool:
        """True when the API server answers that it and etcd serve."""
        with self.api() as api:
            return api.is_ready()

    def start_etcd(self) -> Child:
        """Start etcd without waiting for it."""
        self.etcd = Child(self._etcd_spec())
        return self.etcd

    def start_api_server(self) -> Child:
        """Start the API server without waiting for it; it tries until etcd answers."""
        self.api_server = Child(self._api_server_spec())
        return self.api_server

    def stop(self) -> None:
        """Stop both, the API server first."""
        for child in (self.api_server, self.etcd):
            if child is not None:
                child.stop()

    def write_kubeconfigs(self) -> None:
        """Write the files for the administrator and the operator."""
        users = (
            (self.home.kubeconfig, ADMIN_USER, self.tokens.admin),
            (self.home.operator_kubeconfig, OPERATOR_USER, self.tokens.operator),
        )
        for path, user, token in users:
            write_kubeconfig(path, server=self.server, authority=self.authority, user=user, token=token)

    def choose_ports(self) -> None:
        """Take free ports, the preferred ones where they are free; only while nothing runs."""
        self.ports = Ports.choose(self._preferred)
        self.server = f"https://{LOOPBACK}:{self.ports.api}"

    def _etcd_spec(self) -> Spec:
        client, peer = (f"https://{LOOPBACK}:{port}" for port in (self.ports.etcd, self.ports.etcd_peer))
        flags = {
            "name": "skyward",
            "data-dir": str(self.home.etcd),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"skyward={peer}",
            "cert-file": str(self._pki.server_certificate),
            "key-file": str(self._pki.server_key),
            "client-cert-auth": "true",
            "trusted-ca-file": str(self._pki.authority),
            "peer-cert-file": str(self._pki.server_certificate),
            "peer-key-file": str(self._pki.server_key),
            "peer-client-cert-auth": "true",
            "peer-trusted-ca-file": str(self._pki.authority),
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "5m",
            "log-level": "warn",
            "logger": "zap",
        }
        # GODEBUG and proxies of the user's shell have no business in a process on the loopback interface
        return Spec("etcd", _command(self._binaries[0], flags), self.home.log("etcd"), _NO_PROXY)

    def _api_server_spec(self) -> Spec:
        flags = {
            "etcd-servers": f"https://{LOOPBACK}:{self.ports.etcd}",
            "etcd-cafile": str(self._pki.authority),
            "etcd-certfile": str(self._pki.client_certificate),
            "etcd-keyfile": str(self._pki.client_key),
            "bind-address": LOOPBACK,
            "advertise-address": LOOPBACK,
            "secure-port": str(self.ports.api),
            "tls-cert-file": str(self._pki.server_certificate),
            "tls-private-key-file": str(self._pki.server_key),
            "cert-dir": str(self.home.pki),
            "service-account-key-file": str(self._pki.service_account_key),
            "service-account-signing-key-file": str(self._pki.service_account_key),
            "service-account-issuer": "https://kubernetes.default.svc",
            "token-auth-file": str(self.tokens.file),
            "anonymous-auth": "false",
            "authorization-mode": "RBAC",
            # without a controller manager nobody makes service accounts, and this plugin would wait for them
            "disable-admission-plugins": "ServiceAccount",
            "service-cluster-ip-range": "10.96.0.0/24",
            "endpoint-reconciler-type": "none",
            "profiling": "false",
        }
        command = _command(self._binaries[1], flags)
        return Spec("kube-apiserver", command, self.home.log("kube-apiserver"), _NO_PROXY)


_NO_PROXY = {"HTTP_PROXY": "", "HTTPS_PROXY": "", "http_proxy": "", "https_proxy": "", "NO_PROXY": LOOPBACK}


def _command(binary: Path, flags: dict[str, str]) -> list[str]:
    return [str(binary), *(f"--{name}={value}" for name, value in flags.items())]


def _failed(child: Child, what: str) -> StartFailed:
    return StartFailed(what, child.spec.log, child.tail())
