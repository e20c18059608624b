"""The `local` provider: machines are processes of this computer, and cost nothing.

It keeps the same contract as a cloud: offers, creation that is idempotent by token, listing by tag,
termination until nothing is left. Machines outlive the operator. Nothing bounds their number but the
computer: each is offered all of its processors and memory, and they share them.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psutil

from skyward_operator.providers.contract import Capabilities, Listing, Offer
from skyward_operator.providers.errors import Rejected, Transient
from skyward_operator.providers.local.folder import Folder, Record, machine_id
from skyward_operator.providers.local.openssh import find_sshd
from skyward_operator.providers.local.power import POWER_OFF, clear_away, switch_off, switch_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import CreateRequest, Machine, Notice, Setup

NAME = "local"
SSH_SERVERS = ("asyncssh", "openssh")


class LocalProvider:
    """Machines under `<data_dir>/vms`."""

    name = NAME
    capabilities = Capabilities(
        idempotency_token=True,
        visibility_seconds=0.0,
        host_key=True,
        stop_ends_billing=True,
        power_off=POWER_OFF,
    )

    def __init__(self, setup: Setup) -> None:
        self._root = setup.data_dir / "vms"

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """One offer: this computer, for nothing. Raises Rejected for what it does not have."""
        offer = this_computer(candidate.name)
        refuse_unless_possible(candidate, offer)
        ssh_server(candidate.parameters)
        return [offer]

    async def quote(self, offer: Offer) -> Offer:
        """The same: this computer costs nothing."""
        return offer

    async def create(self, request: CreateRequest) -> Machine:
        """Start a machine, or return the one that this token already started."""
        return await asyncio.to_thread(self._create, request)

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """All machines that carry these tags."""
        return Listing(await asyncio.to_thread(self._list, tags), complete=True)

    async def describe(self, machine_id: str) -> Machine | None:
        """The machine as its files and its lock say."""
        return await asyncio.to_thread(self._folder(machine_id).machine)

    async def terminate(self, machine_id: str, token: str) -> bool:
        """End all processes of a machine, then delete its files. True once nothing is left."""
        return await asyncio.to_thread(self._terminate, machine_id, token)

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """Nobody takes this computer away."""
        return []

    async def console(self, machine_id: str) -> str:
        """The end of the log of the machine's process."""
        return await asyncio.to_thread(self._folder(machine_id).console)

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """There is nothing beside the machines."""
        return True

    async def aclose(self) -> None:
        """Nothing is held; machines stay."""

    def _folder(self, machine_id: str) -> Folder:
        if not machine_id.startswith(f"{NAME}-") or not machine_id.removeprefix(f"{NAME}-").isalnum():
            raise Rejected(f"{machine_id!r} is not the id of a local machine")
        return Folder(self._root, machine_id)

    def _create(self, request: CreateRequest) -> Machine:
        folder = Folder(self._root, machine_id(request.token))
        server = ssh_server(request.parameters)
        with folder.guard():
            if folder.ended():
                raise Rejected(f"machine {folder.id} was ended; its token buys no second one")
            if folder.record() is None:
                folder.write_record(
                    Record(
                        id=folder.id,
                        token=request.token,
                        name=request.name,
                        tags=dict(request.tags),
                        ssh_public_key=request.ssh_public_key,
                        ssh_server=server,
                        created=datetime.now(UTC).isoformat(),
                    )
                )
            if not folder.started():
                switch_on(folder)
            machine = folder.machine()
        if machine is None:
            raise Transient(f"machine {folder.id} vanished while it was made")
        return machine

    def _list(self, tags: Mapping[str, str]) -> Sequence[Machine]:
        folders = (Folder(self._root, path.name) for path in self._root.glob(f"{NAME}-*"))
        machines = (machine for folder in folders if (machine := folder.machine()) is not None)
        return [machine for machine in machines if tags.items() <= machine.tags.items()]

    def _terminate(self, machine_id: str, token: str) -> bool:
        folder = self._folder(machine_id)
        with folder.guard():
            record = folder.record()
            if record is not None and record.token != token:
                return True
            if not switch_off(folder):
                return False
            folder.mark_ended()
            clear_away(folder)
        return True


def this_computer(candidate: str) -> Offer:
    """The one offer there is."""
    return Offer(
        provider=NAME,
        region=NAME,
        instance_type=NAME,
        market="on-demand",
        hourly_price=Decimal(0),
        on_demand_price=Decimal(0),
        vcpus=os.cpu_count() or 1,
        memory_gib=psutil.virtual_memory().total // 2**30,
        disk_gib=shutil.disk_usage("/").free // 2**30,
        architecture={"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        candidate=candidate,
    )


def refuse_unless_possible(candidate: Candidate, offer: Offer) -> None:
    """Raise Rejected, naming the field, where a candidate asks for what this computer does not have."""
    if candidate.accelerator is not None:
        raise Rejected("accelerator: the local provider has none; choose another provider or leave it out")
    if candidate.market == "spot":
        raise Rejected("market: the local provider has no spot market; use spot-if-available or on-demand")
    for field, wanted in (("regions", candidate.regions), ("instanceTypes", candidate.instance_types)):
        if wanted and NAME not in wanted:
            raise Rejected(f"{field}: the local provider has only {NAME!r}, not {', '.join(wanted)}")
    for field, number, unit, has in (
        ("vcpus", candidate.vcpus, "", offer.vcpus),
        ("memoryGiB", candidate.memory_gib, " GiB", offer.memory_gib),
        ("diskGiB", candidate.disk_gib, " GiB free", offer.disk_gib),
    ):
        if number is not None and has is not None and number > has:
            raise Rejected(f"{field}: {number} asked for, this computer has {has}{unit}")
    if candidate.architecture and candidate.architecture != offer.architecture:
        raise Rejected(f"architecture: this computer is {offer.architecture}, not {candidate.architecture}")


def ssh_server(parameters: Mapping[str, str]) -> str:
    """Which SSH server is asked for. Raises Rejected for parameters that do not exist or cannot be had."""
    if unknown := sorted(set(parameters) - {"sshServer"}):
        raise Rejected(f"parameters: the local provider knows sshServer only, not {', '.join(unknown)}")
    wanted = parameters.get("sshServer", "asyncssh")
    if wanted not in SSH_SERVERS:
        raise Rejected(f"parameters.sshServer: {wanted!r} is none of {', '.join(SSH_SERVERS)}")
    if wanted == "openssh" and find_sshd() is None:
        raise Rejected("parameters.sshServer: openssh is not installed here; install openssh-server")
    return wanted
