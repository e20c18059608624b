"""The provider of the herd: its machines are user names at one SSH server, and cost nothing.

It keeps one small file per machine, so that it knows them after the operator was started again.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from skyward_operator.providers.contract import (
    Address,
    Capabilities,
    CreateRequest,
    Listing,
    Machine,
    MachineState,
    Offer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from skyward.contract.hardware import Candidate
    from skyward_operator.providers.contract import Notice, Setup

FILE_VARIABLE: Final = "SKYWARD_BENCHMARK_HERD"
"""Names the file in which the server says where it listens."""


class HerdProvider:
    """Machines that are there at once."""

    name = "herd"
    capabilities = Capabilities(
        idempotency_token=True, visibility_seconds=0.0, host_key=True, stop_ends_billing=True
    )

    def __init__(self, setup: Setup) -> None:
        where: dict[str, Any] = json.loads(Path(os.environ[FILE_VARIABLE]).read_bytes())
        self._port, self._host_key = int(where["port"]), str(where["hostKey"])
        self._folder = setup.data_dir / "herd"
        self._folder.mkdir(parents=True, exist_ok=True)

    async def offers(self, candidate: Candidate) -> Sequence[Offer]:
        """As many as are wanted, for nothing."""
        nothing = Decimal(0)
        return [Offer("herd", "here", "herd", "on-demand", nothing, nothing, candidate=candidate.name)]

    async def quote(self, offer: Offer) -> Offer:
        """Nothing, as ever."""
        return offer

    async def create(self, request: CreateRequest) -> Machine:
        """The machine of this token."""
        file = self._file(f"herd-{request.token}")
        file.write_text(json.dumps({"token": request.token, "tags": dict(request.tags)}))
        return self._machine(file)

    async def list(self, tags: Mapping[str, str]) -> Listing:
        """All that carry the tags."""
        machines = [self._machine(file) for file in self._folder.iterdir()]
        return Listing([each for each in machines if tags.items() <= each.tags.items()], complete=True)

    async def describe(self, machine_id: str) -> Machine | None:
        """It runs, unless it was ended."""
        file = self._file(machine_id)
        return self._machine(file) if file.exists() else None

    async def terminate(self, machine_id: str, token: str) -> bool:
        """Gone at once."""
        self._file(machine_id).unlink(missing_ok=True)
        return True

    async def interruptions(self, tags: Mapping[str, str]) -> Sequence[Notice]:
        """None."""
        return []

    async def console(self, machine_id: str) -> str:
        """Silence."""
        return ""

    async def clean_up(self, tags: Mapping[str, str]) -> bool:
        """There is nothing beside the machines."""
        return True

    async def aclose(self) -> None:
        """Nothing is held."""

    def _file(self, machine_id: str) -> Path:
        return self._folder / Path(machine_id).name

    def _machine(self, file: Path) -> Machine:
        known = json.loads(file.read_bytes())
        return Machine(
            id=file.name,
            token=known["token"],
            tags=known["tags"],
            state=MachineState.RUNNING,
            address=Address("127.0.0.1", self._port, file.name),
            host_key=self._host_key,
        )
