"""Which API server, and how to be let in.

A kubeconfig (or the service account of a pod) is used when there is one; without any, the embedded control
plane is started. The `kubernetes` package is imported for foreign kubeconfigs only, whose auth plugins it
knows.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from skyward.errors import NoControlPlane

if TYPE_CHECKING:
    from skyward.local import Endpoint

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ReportedStep(Protocol):
    """What the embedded control plane tells while it starts."""

    @property
    def name(self) -> str:
        """What is being done."""
        ...

    @property
    def detail(self) -> str:
        """How far it is."""
        ...


type Report = Callable[[ReportedStep], None]


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server and how to be let in. `headers` is asked before each request: tokens are renewed."""

    server: str
    namespace: str
    title: str
    verify: ssl.SSLContext | bool = True
    headers: Callable[[], dict[str, str]] = field(default=dict, repr=False)
    is_embedded: bool = False
    is_inside: bool = False
    """This program runs in a pod of that cluster."""


def connect(report: Report, *, start: bool = True) -> Connection:
    """The connection that this environment means; starts the embedded control plane if it means none.

    `SKYWARD_CONTROL_PLANE=local` chooses the embedded one whatever else is there.
    Raises NoControlPlane if a kubeconfig is there and cannot be used.
    """
    choice = os.environ.get("SKYWARD_CONTROL_PLANE", "")
    if choice not in ("", "local"):
        raise NoControlPlane(
            f"SKYWARD_CONTROL_PLANE={choice!r} is not known",
            remedy="set it to 'local' for the embedded control plane, or unset it",
        )
    if choice == "local":
        return _embedded(report, start)
    kubeconfig = find_kubeconfig()
    if kubeconfig is not None:
        return _from_kubeconfig(kubeconfig)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    return _embedded(report, start)


def find_kubeconfig() -> str | None:
    """The kubeconfig of the environment (several paths in one string are kubectl's way), or None."""
    if configured := os.environ.get("KUBECONFIG"):
        return configured
    default = Path.home() / ".kube" / "config"
    return str(default) if default.exists() else None


def _embedded(report: Report, start: bool) -> Connection:
    if not start:
        running = find_embedded()
        if running is None:
            raise NoControlPlane(
                "there is no kubeconfig, and the embedded control plane does not run",
                remedy="start it with `skyward local up`, or set KUBECONFIG",
            )
        return running
    from skyward.local import ensure

    return _to(ensure(report))


def _to(endpoint: "Endpoint") -> Connection:
    authorization = {"Authorization": f"Bearer {endpoint.token}"}
    return Connection(
        server=endpoint.server,
        namespace=endpoint.namespace,
        title="embedded control plane",
        verify=ssl.create_default_context(cafile=str(endpoint.ca_file)),
        headers=lambda: authorization,
        is_embedded=True,
    )


def find_embedded() -> Connection | None:
    """The embedded control plane if it runs; it is not started."""
    from skyward.local import find

    endpoint = find()
    return _to(endpoint) if endpoint is not None else None


def trouble_words(connection: Connection) -> str:
    """What a person reads while the API server does not answer, whatever the reason of each try was."""
    if not connection.is_embedded:
        return f"{connection.server} does not answer, still waiting; check it: kubectl cluster-info"
    from skyward.local.home import Home
    from skyward.local.status import State, read_status

    home = Home.locate()
    status, shortage = read_status(home), f"{home.shortage}; then " if home.shortage else ""
    if status is None or status.is_alive:
        return f"does not answer, still waiting; {shortage}see `skyward local status`"
    how = "stopped" if status.state is State.STOPPED else "failed" if status.error else "killed"
    ended = f"was {how}" if how != "failed" else f"failed: {status.error}"
    return f"{ended}; {shortage}run `skyward local up` in another terminal and this program goes on"


def _in_cluster() -> Connection:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {(SERVICE_ACCOUNT / 'token').read_text().strip()}"}

    return Connection(
        server=f"https://{host}:{port}",
        namespace=(SERVICE_ACCOUNT / "namespace").read_text().strip() or "default",
        title="cluster of this pod",
        verify=ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")),
        headers=headers,
        is_inside=True,
    )


def _from_kubeconfig(path: str) -> Connection:
    from kubernetes import client, config

    try:
        _, active = config.list_kube_config_contexts(config_file=path)  # type: ignore[no-untyped-call]
        configuration = client.Configuration()
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, client_configuration=configuration
        )
    except (config.ConfigException, OSError, TypeError, ValueError) as error:
        raise NoControlPlane(
            f"the kubeconfig {path} cannot be used: {error}",
            remedy="correct KUBECONFIG, or set SKYWARD_CONTROL_PLANE=local for the embedded control plane",
        ) from None

    def headers() -> dict[str, str]:
        if configuration.refresh_api_key_hook is not None:
            configuration.refresh_api_key_hook(configuration)
        # its name was "authorization" up to version 35 of that package
        authorization = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if not authorization and configuration.username:
            authorization = configuration.get_basic_auth_token()
        return {"Authorization": authorization} if authorization else {}

    return Connection(
        server=configuration.host.rstrip("/"),
        namespace=(active["context"].get("namespace") if active else None) or "default",
        title=f"context {active['name']}" if active else path,
        verify=_tls(configuration),
        headers=headers,
    )


def _tls(configuration: Any) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
