"""What the operator can be told, once, at its start: by flags, else by SKYWARD_* variables.

A value that cannot be right stops the start with a message that names the flag and what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from skyward.contract.names import LEASE_NAME, SYSTEM_NAMESPACE

if TYPE_CHECKING:
    from pathlib import Path

LOG_FORMATS: Final = ("plain", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LEAST_OUTPUT_BYTES: Final = 1024**2
"""A task that runs may keep that much of its output, however many there are."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds: a lease holds, its holder may act after a renewal, and waits until the next."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Kubernetes Service."""

    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}"

    @property
    def url(self) -> str:
        """Where pods reach it."""
        return f"http://{self.name}.{self.namespace}.svc:{self.port}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A part of a bucket of an S3 API. Credentials come by the usual chain of AWS, never from here."""

    name: str
    prefix: str = ""
    """Empty, or ending in a slash."""
    endpoint: str | None = None
    """None: AWS."""
    region: str | None = None
    """None: as the environment says."""

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}" + (f" at {self.endpoint}" if self.endpoint else "")


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's settings."""

    data_dir: Path
    """Files of tasks, logs, the local provider's machines; kept between starts, private to one operator."""
    kubeconfig: Path | None = None
    """None: the service account when inside a cluster, else the default kubeconfig."""
    context: str | None = None
    """The kubeconfig's context; None is its current one."""
    namespaces: tuple[str, ...] = ()
    """Where Skyward's objects are looked after; empty is everywhere."""
    gateway_listen: Address = Address("127.0.0.1", 0)
    health_listen: Address = Address("127.0.0.1", 0)
    largest_payload: int = 16 * 1024**3
    """Bytes that the calls of one task may take at the gateway."""
    largest_result: int = 16 * 1024**3
    """Bytes that one call may return; its node refuses more."""
    task_output_bytes: int = 64 * 1024**2
    """Output of one task that is kept on disk: its beginning and its latest end."""
    output_bytes: int = 16 * 1024**3
    """Output of all tasks and nodes that is kept on disk; what has ended first goes first."""
    output_days: float = 30.0
    """How long the output of what has ended is kept, if its object is."""
    advertise_gateway_url: str | None = None
    """What all clients reach the gateway by; None: its Service, else what it listens on."""
    gateway_service: ServicePort | None = None
    """The Service before the gateway: pods go to it, other clients through the API server's proxy."""
    blob_store: Bucket | None = None
    """Where complete payloads and results are kept; None: in the data folder alone."""
    log_format: str = "plain"
    log_level: str = "info"
    providers: tuple[str, ...] = ()
    """The providers that are enabled; empty is every installed one."""
    identity: str | None = None
    """What the lease shows as its holder, before a unique part; None is the host's name."""
    holder: str | None = None
    """The whole of what the lease shows as its holder, where whoever starts the operator chose it: given to
    one process only, ever. None makes one of `identity`."""
    predecessors: tuple[str, ...] = ()
    """Holders whose processes are known to have ended: their lease need not be waited for."""
    lease_name: str = LEASE_NAME
    lease_namespace: str = SYSTEM_NAMESPACE
    lease_times: LeaseTimes = LeaseTimes()
    resync_seconds: float = 300.0
    sweep_seconds: float = 60.0
    """How often the providers are looked through for machines that belong to no node."""
    sweep_margin_seconds: float = 60.0
    """How much longer than it may be wrongly listed such a machine is watched before it is ended."""

    @property
    def namespace(self) -> str | None:
        """The only namespace looked after, or None where there is no such."""
        return self.namespaces[0] if len(self.namespaces) == 1 else None

    @property
    def endpoints_file(self) -> Path:
        """Where the addresses are written once the operator is ready."""
        return self.data_dir / "endpoints.json"
