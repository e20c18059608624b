"""The SSH key of a pool, when its Secret is deleted, and the host key of a machine, when somebody else
answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest
from tests.fake.nodes_plane import NODES
from tests.fake.sim_nodes import SimNodes, sim_nodes

from skyward.contract.names import POOL, ssh_secret_name
from skyward_operator.providers.conformance import until

if TYPE_CHECKING:
    from tests.fake.nodes_plane import Operator

SECRETS = "/api/v1/namespaces/default/secrets"
EVENTS = "/api/v1/namespaces/default/events"
NAME = ssh_secret_name("p", "pool-uid")


def have_pool(operator: Operator, version: int = 1, **metadata: str) -> None:
    """Let the operator know the pool of its nodes."""
    known = {"name": "p", "namespace": "default", "uid": "pool-uid", "resourceVersion": str(version)}
    spec = {"candidates": [{"name": "main", "provider": "sim"}]}
    operator.context.store.put(POOL, {"kind": "ComputePool", "metadata": known | metadata, "spec": spec})


def told(world: SimNodes, reason: str) -> list[str]:
    """What people were told for this reason."""
    events = world.kube.objects.get(EVENTS, {}).values()
    return [event["message"] for event in events if event["reason"] == reason]


async def seen(look: Any) -> None:
    """Wait until something is so."""

    async def once() -> Any:
        return look() or None

    await until(once, 40)


async def test_a_secret_that_is_deleted_while_machines_run_is_put_back_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next operator meets them with the same key; once the pool goes, its Secret stays away."""
    monkeypatch.setattr("skyward_operator.nodes.identity.LOOK_SECONDS", 0.05)
    async with sim_nodes(ssh=True) as world:
        world.add()
        async with world.operator() as operator:
            have_pool(operator)
            await world.reaches(phase="Ready")
            before = world.kube.objects[SECRETS][NAME]["data"]["ssh-publickey"]
            world.kube.remove(SECRETS, NAME)
            await seen(lambda: NAME in world.kube.objects[SECRETS])
            assert world.kube.objects[SECRETS][NAME]["data"]["ssh-publickey"] == before
            await seen(lambda: told(world, "SshKeyRestored"))
        async with world.operator() as operator:
            have_pool(operator)
            await operator.listened(ready=1)
            have_pool(operator, 2, deletionTimestamp="2026-01-01T00:00:00Z")
            world.kube.remove(SECRETS, NAME)
            looked = world.kube.count("GET", "/secrets")
            await asyncio.sleep(0.5)  # ten looks: none of them asks for it
            assert world.kube.count("GET", "/secrets") == looked
            assert NAME not in world.kube.objects[SECRETS]


class Impostor(asyncssh.SSHServer):
    """Somebody who answers in a machine's place, and hopes for a login."""

    logins = 0

    def begin_auth(self, username: str) -> bool:
        """A client has accepted our key."""
        Impostor.logins += 1
        return False


@pytest.mark.parametrize("profile", ["full", "user-data", "bare"])
async def test_whoever_answers_in_place_of_a_known_machine_is_told_nothing_and_replaced(profile: str) -> None:
    """Known by its provider, by what it was told at its first boot, or by what it showed first."""
    async with sim_nodes(profile, ssh=True) as world:
        world.add()
        async with world.operator():
            status = await world.reaches(phase="Ready")
            (machine,) = world.sim.service.cloud.state.live()
            assert status["hostKey"].split() == machine.host_key.split()
            assert status["hostKeyFingerprint"].startswith("SHA256:")
            pinned = told(world, "HostKeyPinned")
            assert bool(pinned) is (profile == "bare")
            assert all(status["hostKeyFingerprint"] in text for text in pinned)
        Impostor.logins = 0
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Impostor,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        )
        obj = world.kube.objects[NODES]["p-0"]
        address = {"host": "127.0.0.1", "port": server.get_port(), "user": "root"}
        world.kube.put(NODES, obj | {"status": obj["status"] | {"address": address}})
        async with world.operator():
            status = await world.reaches(phase="Failed")
            assert status["reason"] == "HostKeyMismatch"
            assert f"127.0.0.1:{server.get_port()} shows another host key" in status["message"]
            await seen(lambda: not world.sim.audit().alive)
        assert Impostor.logins == 0
        server.close()
        await server.wait_closed()
