"""What the supervisor says about itself, in one file that is replaced at once.

It is read by processes of other versions, and after crashes: a reader takes nothing for granted, and a file
that cannot be read counts as none.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from skyward.local.home import Home, write_private
from skyward.local.processes import Identity


class State(StrEnum):
    """Where the control plane is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ComponentState(StrEnum):
    """Where one process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Component:
    """One of the processes that the supervisor looks after."""

    name: str
    state: ComponentState = ComponentState.STOPPED
    identity: Identity | None = None
    restarts: int = 0
    last_exit: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole control plane."""

    state: State
    supervisor: Identity
    skyward: str
    """Version of the package that runs it."""
    schema: str
    """Version of the resource definitions that it serves."""
    python: str
    """The interpreter that runs it: it may be deleted while it runs."""
    started: float
    """Seconds since the epoch."""
    step: str = ""
    error: str = ""
    server: str = ""
    ports: tuple[int, ...] = ()
    gateway: str = ""
    health: str = ""
    components: tuple[Component, ...] = ()

    def component(self, name: str) -> Component | None:
        """Answer the component of that name."""
        return next((one for one in self.components if one.name == name), None)

    def with_component(self, component: Component) -> "Status":
        """A copy in which `component` replaces the one of its name, or comes last."""
        known = [component if one.name == component.name else one for one in self.components]
        if self.component(component.name) is None:
            known.append(component)
        return replace(self, components=tuple(known))

    @property
    def is_alive(self) -> bool:
        """True while the supervisor that wrote it runs."""
        return self.supervisor.process() is not None

    @property
    def all_running(self) -> bool:
        """True when each component runs."""
        return all(one.state is ComponentState.RUNNING for one in self.components)

    @property
    def seconds_up(self) -> float:
        """How long the control plane has been up."""
        return max(0.0, time.time() - self.started)


def read_status(home: Home) -> Status | None:
    """Answer the newest status, or None when there is none or it cannot be understood."""
    try:
        return parse_status(home.status.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_status(path: Path, status: Status) -> None:
    """Replace the file."""
    write_private(path, json.dumps(asdict(status), indent=2).encode() + b"\n")


def parse_status(data: bytes) -> Status:
    """Read the file's text; fields that this version does not know are left out.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not a status.
    """
    document: dict[str, Any] = json.loads(data)
    identity = _identity(document["supervisor"])
    if identity is None:
        raise ValueError("no supervisor")
    return Status(
        state=State(document["state"]),
        supervisor=identity,
        skyward=str(document["skyward"]),
        schema=str(document["schema"]),
        python=str(document["python"]),
        started=float(document["started"]),
        step=str(document.get("step", "")),
        error=str(document.get("error", "")),
        server=str(document.get("server", "")),
        ports=tuple(int(port) for port in document.get("ports", ())),
        gateway=str(document.get("gateway", "")),
        health=str(document.get("health", "")),
        components=tuple(_component(one) for one in document.get("components", ())),
    )


def _identity(value: dict[str, Any] | None) -> Identity | None:
    return Identity(int(value["pid"]), float(value["created"])) if value else None


def _component(value: dict[str, Any]) -> Component:
    return Component(
        name=str(value["name"]),
        state=ComponentState(value["state"]),
        identity=_identity(value.get("identity")),
        restarts=int(value.get("restarts", 0)),
        last_exit=str(value.get("last_exit", "")),
    )
