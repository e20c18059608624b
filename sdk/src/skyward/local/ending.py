"""What has to be settled before the control plane may stop.

Nobody ends a machine while the control plane is down, so it does not go down while one costs money, or may.
The machines of the `local` provider are processes of this computer: their pools are deleted first, and
whatever does not go in time is named.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from skyward.contract.names import API_VERSION, NODE, POOL
from skyward.local import plane
from skyward.local.api import Api, ApiError, ApiUnavailable, Object
from skyward.local.endpoint import Endpoint
from skyward.local.errors import NodesCostMoney
from skyward.local.home import Home
from skyward.local.processes import find_by_argument
from skyward.local.progress import Report, silent, working
from skyward.local.status import read_status

FREE_PROVIDER = "local"
UNKNOWN = "unknown"
RELEASE_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Machine:
    """A ComputeNode that is not proved to be gone."""

    namespace: str
    name: str
    pool: str
    phase: str
    providers: frozenset[str]
    """Where it is, or could be while nothing is known yet."""

    @property
    def is_free(self) -> bool:
        """True when it cannot cost money."""
        return self.providers == {FREE_PROVIDER}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} ({', '.join(sorted(self.providers))}, {self.phase})"


@dataclass(frozen=True, slots=True)
class Ended:
    """What `down` did, and what it leaves."""

    was_running: bool
    deleted_pools: Sequence[str] = field(default_factory=tuple)
    """Those that had local machines."""
    left_machines: Sequence[str] = field(default_factory=tuple)
    """Machines that nobody looks after any more; with `force` these may cost money."""
    left_processes: Sequence[str] = field(default_factory=tuple)
    """Processes of local machines that still run."""


def down(report: Report = silent, *, force: bool = False, timeout: float = RELEASE_SECONDS) -> Ended:
    """Release the local machines, stop the control plane, and keep its data.

    Args:
        report: told what happens.
        force: stop even though machines cost money or nobody can say whether they do.
        timeout: seconds to wait until the local machines are gone.

    Raises:
        NodesCostMoney: naming them; nothing was stopped.
    """
    home = Home.locate()
    status = read_status(home)
    if status is None or not status.is_alive:
        if home.root.exists():
            plane.stop(home, report)  # what a killed supervisor may have left
        return Ended(was_running=False, left_processes=_processes(home))
    deleted, left = _settle(plane.find(), report, force=force, timeout=timeout)
    plane.stop(home, report)
    return Ended(True, deleted, left, _processes(home))


def machines(nodes: Sequence[Object]) -> list[Machine]:
    """Read ComputeNodes; those whose machine is proved gone are left out."""
    return [_machine(node) for node in nodes if (node.get("status") or {}).get("phase") != "Gone"]


def _machine(node: Object) -> Machine:
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    offer = (status.get("launch") or {}).get("offer") or {}
    candidates = [candidate.get("provider") for candidate in spec.get("candidates") or []]
    named = [offer["provider"]] if offer.get("provider") else candidates
    return Machine(
        namespace=metadata["namespace"],
        name=metadata["name"],
        pool=(spec.get("poolRef") or {}).get("name", ""),
        phase=status.get("phase") or "Pending",
        providers=frozenset(str(name or UNKNOWN) for name in named) or frozenset({UNKNOWN}),
    )


def _settle(
    endpoint: Endpoint | None, report: Report, *, force: bool, timeout: float
) -> tuple[list[str], list[str]]:
    """Refuse, or release what can be released; answer the pools that were deleted, and what is left."""
    if endpoint is None:
        what = "unknown: the API server does not answer, so nobody can say which machines there are"
        if not force:
            raise NodesCostMoney([what])
        return [], [what]
    deleted: list[str] = []
    with Api(endpoint.server, endpoint.ca_file, endpoint.token) as api:
        try:
            found = _list(api)
            paid = [str(machine) for machine in found if not machine.is_free]
            if paid and not force:
                raise NodesCostMoney(paid)
            free = [machine for machine in found if machine.is_free]
            deleted = sorted({f"{machine.namespace}/{machine.pool}" for machine in free})
            _release(api, free, report, timeout)
            return deleted, [str(machine) for machine in _list(api)]
        except (ApiError, ApiUnavailable) as error:
            what = f"unknown: {error}"
            if not force:
                raise NodesCostMoney([what]) from error
            return deleted, [what]


def _list(api: Api) -> list[Machine]:
    answer = api.get(f"/apis/{API_VERSION}/{NODE.plural}") or {}
    return machines(answer.get("items") or [])


def _release(api: Api, free: Sequence[Machine], report: Report, timeout: float) -> None:
    """Delete the pools of local machines and wait until those are gone, or the time is over."""
    if not free:
        return
    for namespace, pool in sorted({(machine.namespace, machine.pool) for machine in free}):
        api.delete(f"/apis/{API_VERSION}/namespaces/{namespace}/{POOL.plural}/{pool}")
    deadline = time.monotonic() + timeout
    with working(report, "releasing local machines") as progress:
        while (left := [one for one in _list(api) if one.is_free]) and time.monotonic() < deadline:
            progress.say(f"{len(free) - len(left)} of {len(free)} gone")
            time.sleep(_POLL_SECONDS)


def _processes(home: Home) -> list[str]:
    """Processes that were started for a machine under the operator's folder."""
    found: list[str] = []
    for process in find_by_argument(f"{home.operator}/", within=True):
        with process.oneshot():
            found.append(f"process {process.pid}: {' '.join(process.cmdline()[:6])}")
    return found
