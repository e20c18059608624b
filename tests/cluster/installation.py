"""An operator as it is installed in a cluster: behind a Service, which only pods reach directly.

There is no kubelet here, so the pod is an entry in the API server with an address of this computer, where
the operator's gateway really listens: the API server passes requests on to addresses of pods only, and never
to loopback.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from tests.chaos.scene import eventually

from skyward.contract.names import GATEWAY_PORT, GATEWAY_SERVICE, SYSTEM_NAMESPACE
from skyward.contract.rbac import EDITOR, GATEWAY, Role
from skyward.local.kubeconfig import write_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.conftest import ControlPlane

    from skyward.local.api import Api

RBAC = "rbac.authorization.k8s.io"
SERVICE = f"{SYSTEM_NAMESPACE}/{GATEWAY_SERVICE}:{GATEWAY_PORT}"


def own_address() -> str:
    """An IPv4 address of this computer that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family is socket.AF_INET:
                found = ipaddress.ip_address(each.address)
                if not found.is_loopback and not found.is_link_local:
                    return str(found)
    raise AssertionError("this computer has no address but loopback: give a network interface one")


def free_port(host: str) -> int:
    """A port that is free there now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(slots=True)
class Installation:
    """The operator's process, and where it is."""

    plane: ControlPlane
    namespace: str
    folder: Path
    flags: Sequence[str] = ()
    program: Sequence[str] = ("-m", "skyward_operator")
    process: subprocess.Popen[bytes] | None = None
    holders: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start an operator and wait until it is ready."""
        endpoints = self.folder / "operator" / "endpoints.json"
        endpoints.unlink(missing_ok=True)
        holder = f"test-{secrets.token_hex(4)}"
        with (self.folder / "operator.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *self.program, "run"),
                    *("--kubeconfig", str(self.plane.operator_kubeconfig)),
                    *("--data-dir", str(self.folder / "operator")),
                    *("--namespace", self.namespace),
                    # whoever sees an operator end may say so, and the next one need not wait
                    *("--holder", holder, "--predecessors", ",".join(self.holders)),
                    *self.flags,
                ],
                stdout=log,
                stderr=log,
            )
        self.holders.append(holder)
        eventually(endpoints.exists, f"the operator is ready; see {log.name}")

    def stop(self) -> None:
        """End it orderly."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(30) == 0

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What it said."""
        return (self.folder / "operator.log").read_text()

    def member(self, *roles: tuple[Role, str], server: str | None = None) -> Path:
        """A kubeconfig of somebody new with these roles, each in a namespace. `server` is where they think
        that the API server is."""
        name = f"user-{secrets.token_hex(4)}"
        with self.plane.api() as api:
            accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
            apply(api, f"{accounts}/{name}", "v1", "ServiceAccount")
            for role, namespace in roles:
                bind(api, role, namespace, self.namespace, name)
        token = self._token(f"{accounts}/{name}/token")
        path = self.folder / f"{name}.kubeconfig"
        write_kubeconfig(
            path, server=server or self.plane.server, authority=self.plane.ca_file, user=name, token=token
        )
        document = json.loads(path.read_text())
        document["contexts"][0]["context"]["namespace"] = self.namespace
        path.write_text(json.dumps(document))
        return path

    def _token(self, path: str) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = httpx.post(
            f"{self.plane.server}{path}",
            json=review,
            headers={"Authorization": f"Bearer {self.plane.token}"},
            verify=ssl.create_default_context(cafile=str(self.plane.ca_file)),
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["status"]["token"])

    def user(self, server: str | None = None) -> Path:
        """The kubeconfig of an ordinary user from outside of the cluster."""
        return self.member((EDITOR, self.namespace), (GATEWAY, SYSTEM_NAMESPACE), server=server)


def apply(api: Api, path: str, version: str, kind: str, *, subresource: str = "", **body: Any) -> None:
    """Create or update an object."""
    named = {"apiVersion": version, "kind": kind, "metadata": {"name": path.rpartition("/")[2]}}
    api.apply(path + subresource, named | body)


def bind(api: Api, role: Role, namespace: str, home: str, account: str) -> None:
    """Give a service account of the namespace `home` a role in `namespace`."""
    api.apply(f"/apis/{RBAC}/v1/clusterroles/{role.name}", role.document())
    apply(
        api,
        f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings/{role.name}-{account}",
        f"{RBAC}/v1",
        "RoleBinding",
        roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": role.name},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": home}],
    )


def expose(api: Api, address: str, port: int) -> None:
    """A Service with one pod behind it, at this address."""
    base = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}"
    pod = f"{GATEWAY_SERVICE}-0"
    containers = [{"name": "operator", "image": "none"}]
    apply(api, f"{base}/pods/{pod}", "v1", "Pod", spec={"containers": containers})
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    apply(api, f"{base}/pods/{pod}", "v1", "Pod", subresource="/status", status=status)
    ports = [{"name": "http", "port": GATEWAY_PORT, "targetPort": port}]
    apply(api, f"{base}/services/{GATEWAY_SERVICE}", "v1", "Service", spec={"ports": ports})
    target = {"kind": "Pod", "name": pod, "namespace": SYSTEM_NAMESPACE}
    subset = {
        "addresses": [{"ip": address, "targetRef": target}],
        "ports": [{"name": "http", "port": port}],
    }
    apply(api, f"{base}/endpoints/{GATEWAY_SERVICE}", "v1", "Endpoints", subsets=[subset])


@contextmanager
def installation(plane: ControlPlane, namespace: str, folder: Path) -> Iterator[Installation]:
    """An operator that looks after one namespace, behind a Service."""
    address = own_address()
    port = free_port(address)
    flags = ("--gateway-listen", f"{address}:{port}", "--gateway-service", SERVICE)
    made = Installation(plane, namespace, folder, flags)
    with plane.api() as api:
        expose(api, address, port)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def lease(plane: ControlPlane) -> dict[str, str]:
    """The annotations of the operator's Lease."""
    with plane.api() as api:
        found = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/skyward-operator")
    assert found is not None
    annotations: dict[str, str] = found["metadata"].get("annotations") or {}
    return annotations
