"""A simulated cloud for tests: the real service on a port of its own, ended with all of its machines."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from simcloud.accounts import Account
from simcloud.bill import audit
from simcloud.ledger import read
from simcloud.scenario import Scenario
from simcloud.service import Service
from simcloud.vms import NoVms, SshVms
from skyward_operator.providers.conformance import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from simcloud.bill import Audit
    from simcloud.vms import Vms

STAFF = "staff-key"
ACCOUNTS = (
    Account(name="default", key="default-key"),
    Account(name="bare", key="bare-account-key", profile="bare"),
    Account(name="user-data", key="user-data-key", profile="user-data"),
    Account(name="small", key="small-account-key", quotas={"instances": 1, "H100": 2}),
    Account(name="reader", key="reader-account-key", permissions=frozenset({"offers", "list"})),
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
SMALL = {"region": "sim-east", "instance_type": "c.small", "market": "on-demand"}
FIVE_MINUTES = 300.0


@dataclass
class Sim:
    """One cloud, and a customer's and the staff's connections to it."""

    folder: Path
    service: Service
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, *, key: str = "default-key", **more: Any) -> httpx.Response:
        """One request. A cut connection raises httpx.RemoteProtocolError."""
        headers = {"Authorization": f"Bearer {key}"}
        return await self.client.request(method, self.service.endpoint + path, headers=headers, **more)

    async def staff(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request of the cloud's staff; it must succeed."""
        answer = await self.ask(method, f"/admin{path}", key=STAFF, **more)
        assert answer.is_success, answer.text
        return answer

    async def ssh_key(self, public_key: str = KEY, key: str = "default-key") -> str:
        """The id of a registered SSH key."""
        content = {"public_key": public_key}
        wanted = {"kind": "ssh-key", "name": f"key-{public_key[-12:]}", "content": content}
        answer = await self.ask("POST", "/v1/side", json=wanted, key=key)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def order(self, token: str = "token", key: str = "default-key", **fields: Any) -> httpx.Response:
        """Order a small machine."""
        ssh_key = await self.ssh_key(key=key)
        order = {**SMALL, "client_token": token, "ssh_key": ssh_key, **fields}
        return await self.ask("POST", "/v1/instances", json=order, key=key)

    async def instance(self, instance_id: str) -> dict[str, Any]:
        """A machine as the API shows it."""
        answer = await self.ask("GET", f"/v1/instances/{instance_id}")
        return dict(answer.json()) if answer.status_code == 200 else {"state": answer.status_code}

    async def reaches(self, instance_id: str, state: str | int) -> dict[str, Any]:
        """A machine once it is in a state; 404 is one, too."""

        async def look() -> dict[str, Any] | None:
            seen = await self.instance(instance_id)
            return seen if seen["state"] == state else None

        return await until(look)

    async def running(self, **fields: Any) -> dict[str, Any]:
        """A machine that runs."""
        ordered = await self.order(**fields)
        assert ordered.status_code == 202, ordered.text
        return await self.reaches(ordered.json()["id"], "running")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the ledger says on disk."""
        return [event for event in read(self.service.cloud.ledger.path) if event["kind"] == kind]

    def audit(self, owner_tag: str = "owner") -> Audit:
        """What an auditor finds."""
        return audit(self.service.cloud.state, self.service.cloud.clock.now(), owner_tag)


@asynccontextmanager
async def serving(folder: Path, vms: Vms, scenario: Scenario | None) -> AsyncIterator[Sim]:
    """A cloud that listens; leaving it ends the service and no machine."""
    async with (
        Service(folder, vms, ACCOUNTS, STAFF, scenario=scenario) as service,
        httpx.AsyncClient(timeout=20) as client,
    ):
        yield Sim(folder, service, client)


@asynccontextmanager
async def sim_cloud(
    *, ssh: bool = False, vms: Vms | None = None, scenario: Scenario | Mapping[str, Any] | None = None
) -> AsyncIterator[Sim]:
    """A cloud of one's own; no machine of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sky-sim-"))
    vms = vms or (SshVms(folder) if ssh else NoVms())
    script = scenario if isinstance(scenario, Scenario) else Scenario.model_validate(scenario or {})
    try:
        async with serving(folder, vms, script) as sim:
            yield sim
    finally:
        clear_away(folder, vms)


def clear_away(folder: Path, vms: Vms) -> None:
    """End every machine of a cloud that was left, and remove its folder."""
    for path in folder.glob("vms/sim-*"):
        assert vms.power_off(path.name)
    shutil.rmtree(folder)
