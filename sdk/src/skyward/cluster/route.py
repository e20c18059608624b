"""Which way leads to the operator's gateway, and the connections on that way.

Its address is used where it can be reached: by the embedded control plane's clients, in the pods of its
cluster, and by all where the operator was told an address for all. Where only a Service is named, everybody
else goes through the API server, with the rights that a kubeconfig gives: the API server checks them, takes
them off, and passes the request on. What a request may do at the gateway is for its ticket to prove.
"""

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import httpx

from skyward.cluster.api import Api
from skyward.cluster.clients import Clients
from skyward.cluster.connection import Connection
from skyward.cluster.tls import TlsSocket
from skyward.errors import GatewayError

REQUEST_SECONDS = 30.0
ANSWER_SECONDS = 120.0
"""Until the operator has stored a large payload."""
_SERVICE = re.compile(r"([^/:]+)/([^/:]+):([0-9]+)")


class GatewayRefused(GatewayError):
    """The gateway has answered, and asking again will not change its answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """A way to the gateway: its paths are put behind `base`. `headers` is asked before each request."""

    base: str
    clients: Clients = field(repr=False)
    headers: Callable[[], dict[str, str]] = field(default=dict, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """None: the usual authorities are trusted."""

    def socket(self, seconds: float) -> socket.socket | TlsSocket:
        """A connection of its own, for what is no plain request. Raises OSError."""
        where = urlsplit(self.base)
        host, port = where.hostname or "", where.port or (443 if where.scheme == "https" else 80)
        plain = socket.create_connection((host, port), seconds)
        if where.scheme != "https":
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return plain
        return TlsSocket(plain, self.tls or ssl.create_default_context(), host)


class Routes:
    """Finds the way, and finds it anew after `forget`: a restarted operator may be elsewhere."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._route: Route | None = None
        self._direct = Clients(partial(_client, verify=True, trust_env=False))
        self._through: tuple[Connection, Clients] | None = None

    def find(self) -> Route:
        """The way as it was last known. Raises GatewayError while no operator has said where it is."""
        route = self._route
        if route is None:
            route = self._route = self._look()
        return route

    def forget(self) -> None:
        """It does not lead there any more."""
        self._route = None

    def close(self) -> None:
        """Close all connections."""
        self._direct.close()
        if self._through is not None:
            self._through[1].close()

    def _look(self) -> Route:
        url, service = self._api.gateway_place()
        connection = self._api.connection
        if service is not None and not connection.is_inside:
            return self._proxied(service, connection)
        if url is None:
            raise GatewayError("no operator has published the address of its gateway yet")
        return Route(url.rstrip("/"), self._direct)

    def _proxied(self, service: str, connection: Connection) -> Route:
        if self._through is None or self._through[0] is not connection:
            # Requests of other threads may be under way with the old one: it ends with the last of them.
            make = partial(_client, verify=connection.verify, trust_env=not connection.is_embedded)
            self._through = connection, Clients(make)
        tls = connection.verify if isinstance(connection.verify, ssl.SSLContext) else None
        return Route(proxy_path(connection.server, service), self._through[1], connection.headers, tls)


def proxy_path(server: str, service: str) -> str:
    """Where the API server takes requests for a Service `NAMESPACE/NAME:PORT`. Raises GatewayError."""
    match = _SERVICE.fullmatch(service)
    if match is None:
        raise GatewayError(
            f"the operator says that its gateway is at {service!r}, which is no Service NAMESPACE/NAME:PORT",
            remedy="install the same version of skyward here and in the cluster",
        )
    return f"{server}/api/v1/namespaces/{match[1]}/services/{match[2]}:{match[3]}/proxy"


def turned_away(response: httpx.Response) -> GatewayRefused | None:
    """Why the API server itself did not let a request through; None for an answer of the gateway, and for
    trouble that passes."""
    if response.status_code not in (401, 403, 404) or "/proxy/" not in response.url.path:
        return None
    try:
        status = response.json()
    except ValueError:
        return None  # the gateway speaks in plain sentences
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return None
    remedy = {
        401: "log in again (kubectl get skp must work with the same kubeconfig)",
        403: "ask for the ClusterRole skyward-gateway in the operator's namespace: kubectl -n skyward-system "
        "create rolebinding NAME --clusterrole=skyward-gateway --user=YOU",
        404: "the operator names a Service that is not there: correct its --gateway-service, or create that "
        "Service",
    }[response.status_code]
    return GatewayRefused(
        f"the API server does not pass requests on to the operator's gateway: {status.get('message', '')}",
        remedy=remedy,
    )


def _client(*, verify: ssl.SSLContext | bool, trust_env: bool) -> httpx.Client:
    return httpx.Client(
        verify=verify,
        timeout=httpx.Timeout(REQUEST_SECONDS, read=ANSWER_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),  # a stream holds one
        trust_env=trust_env,
    )
