"""Requests to the API server: plain dicts in and out, errors by what the caller should do next.

Reads and deletions are repeated over throttling, server errors and broken connections. A create is repeated
only where the server surely has not seen it, or where finding the same object already there proves that it
had: the names are random, so an object of that name is ours.
"""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import httpx

from skyward.cluster.clients import Clients
from skyward.cluster.connection import Connection
from skyward.cluster.cutter import Cutter
from skyward.cluster.lines import whole_lines
from skyward.contract.names import (
    ANNOTATION_GATEWAY,
    ANNOTATION_GATEWAY_SERVICE,
    ANNOTATION_SCHEMA,
    API_VERSION,
    KINDS,
    LEASE_NAME,
    POOL,
    SCHEMA_VERSION,
    SYSTEM_NAMESPACE,
    Kind,
)
from skyward.errors import ControlPlaneError, NoControlPlane, SchemaMismatch

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 4.0
LEASE = Kind("Lease", "leases", "lease", "", group="coordination.k8s.io", version="v1")
CRD = Kind(
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "customresourcedefinition",
    "crd",
    group="apiextensions.k8s.io",
    version="v1",
    namespaced=False,
)
_ANEW = "serve the kinds of this version again: `skyward local down && skyward local up`; the data are kept"


class ApiError(ControlPlaneError):
    """The API server refused a request; `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int, reason: str = "", remedy: str | None = None) -> None:
        super().__init__(message, reason=reason or str(status), remedy=remedy)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return ControlPlaneError, (str(self),)


class AlreadyThere(ControlPlaneError):
    """A repeated create found the object there: an earlier try had worked, though its answer was lost."""

    default_reason = "AlreadyExists"


class Unreachable(ControlPlaneError):
    """The API server does not answer at the moment."""

    default_reason = "Unreachable"


class Api:
    """One API server. Thread-safe; `reconnect` may find it at another address.

    Requests are repeated for `patience` seconds; `on_trouble` hears what is wrong meanwhile, and None at
    its end.
    """

    def __init__(self, connection: Connection, renew: Callable[[], Connection | None] | None = None) -> None:
        self.connection = connection
        self.patience = PATIENCE_SECONDS
        self.on_trouble: Callable[[str | None], None] = lambda _: None
        self._renew = renew
        self._lock = threading.Lock()
        self._clients = Clients(partial(_client, connection))
        self._hurry = threading.local()

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Inside, this thread's requests are repeated for `seconds` altogether, whatever the patience."""
        self._hurry.deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            del self._hurry.deadline

    def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, or None if there is none of that name."""
        return self._unless_missing("GET", path(kind, namespace, name))

    def list(self, kind: Kind, namespace: str, **selectors: str) -> tuple[list[dict[str, Any]], str]:
        """Objects (`labelSelector`, `fieldSelector`) and the resource version to watch from."""
        items: list[dict[str, Any]] = []
        query: dict[str, str] = {"limit": "500", **selectors}
        while True:
            page = self._persistently("GET", path(kind, namespace), query=query)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = token

    def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; it exists when this returns, once."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        try:
            return self._persistently("POST", path(kind, namespace), body=body)
        except AlreadyThere:
            existing = self.get(kind, namespace, name)
            return existing if existing is not None else self.create(kind, body)

    def patch(self, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Merge `body` into an object; None if it is not there."""
        return self._unless_missing("PATCH", path(kind, namespace, name), body)

    def delete(self, kind: Kind, namespace: str, name: str) -> bool:
        """Ask for deletion; False if the object was not there."""
        return self._unless_missing("DELETE", path(kind, namespace, name)) is not None

    def watch_lines(
        self,
        kind: Kind,
        namespace: str,
        query: Mapping[str, str],
        silence: float,
        cutter: Cutter,
        on_open: Callable[[], None],
    ) -> Iterator[bytes]:
        """The lines of one watch request. Raises Unreachable after `silence` seconds without one.

        `on_open` is called when the server has accepted it. Ends early when `cutter` is used, from whichever
        thread.
        """
        timeout = httpx.Timeout(REQUEST_SECONDS, read=silence)
        try:
            with (
                self._clients.use() as client,
                client.stream(
                    "GET",
                    path(kind, namespace),
                    params={"watch": "1", "allowWatchBookmarks": "true", **query},
                    headers=self.connection.headers(),
                    timeout=timeout,
                ) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _refusal(response)
                on_open()
                with cutter.around(response):
                    yield from whole_lines(response.iter_raw())
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Unreachable(f"the watch of {kind.plural} broke: {_words(error)}") from error

    def request(
        self, method: str, url: str, *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """One request, not repeated. Raises ApiError or Unreachable."""
        headers = self.connection.headers()
        if method == "PATCH":
            headers = {**headers, "Content-Type": "application/merge-patch+json"}
        try:
            with self._clients.use() as client:
                response = client.request(method, url, params=query, json=body, headers=headers)
        except httpx.TransportError as error:
            raise Unreachable(
                f"the API server {self.connection.server} does not answer: {_words(error)}",
                remedy=_way_to_server(self.connection),
            ) from None  # its cause is in the words, and a chain of frames adds nothing
        if response.is_success:
            answer: dict[str, Any] = response.json()
            return answer
        raise _refusal(response)

    def reconnect(self) -> None:
        """Look for the API server anew: an embedded one that was restarted may have another address."""
        if self._renew is None:
            return
        with self._lock:
            connection = self._renew()
            if connection is None or connection.server == self.connection.server:
                return
            old, self.connection = self._clients, connection
            self._clients = Clients(partial(_client, connection))
            old.close()

    def check_schema(self) -> None:
        """Raise SchemaMismatch unless the server serves the kinds of this version."""
        title = self.connection.title
        try:
            served = self._persistently("GET", f"/apis/{API_VERSION}")
        except ApiError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            raise SchemaMismatch(
                f"the API server ({title}, {self.connection.server}) does not serve {API_VERSION}",
                remedy=_ANEW
                if self.connection.is_embedded
                else "install Skyward there (the operator and its CRDs), choose another context, or set "
                "SKYWARD_CONTROL_PLANE=local to use the embedded control plane",
            ) from None
        missing = {kind.plural for kind in KINDS} - {entry["name"] for entry in served["resources"]}
        if missing:
            raise SchemaMismatch(
                f"the API server ({title}) serves {API_VERSION} without {', '.join(sorted(missing))}",
                remedy=_ANEW
                if self.connection.is_embedded
                else "apply the CRDs of this version: kubectl apply -f crds/",
            )
        self._check_schema_version()

    def _check_schema_version(self) -> None:
        try:
            crd = self.get(CRD, "", POOL.crd_name)
        except ApiError:  # ordinary users may not read CRDs; the operator checks as well
            return
        annotations = (crd or {}).get("metadata", {}).get("annotations", {})
        version = annotations.get(ANNOTATION_SCHEMA, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise SchemaMismatch(
                f"the CRDs in the cluster have schema version {version}, this skyward needs {SCHEMA_VERSION}",
                remedy=_ANEW
                if self.connection.is_embedded
                else "install the same version of skyward here and in the cluster: "
                "pip install --upgrade skyward, or kubectl apply -f crds/ of this version",
            )

    def gateway_place(self) -> tuple[str | None, str | None]:
        """The address and the Service where the operator says that its gateway is; None is not said (yet)."""
        said = self.operator_lease().get("metadata", {}).get("annotations") or {}
        return said.get(ANNOTATION_GATEWAY), said.get(ANNOTATION_GATEWAY_SERVICE)

    def operator_lease(self) -> dict[str, Any]:
        """The Lease of the operator; empty where no operator has made one."""
        return self.get(LEASE, SYSTEM_NAMESPACE, LEASE_NAME) or {}

    def close(self) -> None:
        """Close all connections."""
        self._clients.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unless_missing(self, method: str, url: str, body: Any = None) -> dict[str, Any] | None:
        try:
            return self._persistently(method, url, body=body)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def _persistently(
        self, method: str, url: str, *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        deadline = getattr(self._hurry, "deadline", time.monotonic() + self.patience)
        unsure = False
        for attempt in itertools.count():
            try:
                answer = self.request(method, url, query=query, body=body)
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not _is_passing(error.status):
                    if unsure and error.status == httpx.codes.CONFLICT:
                        raise AlreadyThere(error.message) from error
                    raise
                if time.monotonic() > deadline:
                    raise
                unsure = True
                self.on_trouble(error.message)
                if attempt > 2:
                    self.reconnect()
                _pause(attempt)
            else:
                if attempt:
                    self.on_trouble(None)
                return answer
        raise AssertionError("the loop returns or raises")


def path(kind: Kind, namespace: str, name: str = "") -> str:
    """The URL path of a collection or an object."""
    base = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    inside = f"/namespaces/{namespace}" if kind.namespaced and namespace else ""
    return f"{base}{inside}/{kind.plural}" + (f"/{name}" if name else "")


def _client(connection: Connection) -> httpx.Client:
    return httpx.Client(
        base_url=connection.server,
        verify=connection.verify,
        timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        trust_env=not connection.is_embedded,
    )


def _refusal(response: httpx.Response) -> Exception:
    try:
        status = response.json()
        message, reason = str(status.get("message", "")), str(status.get("reason", ""))
    except ValueError:
        message, reason = response.text[:500], ""
    match response.status_code:
        case httpx.codes.UNAUTHORIZED:
            return NoControlPlane(
                f"the API server does not accept the credentials: {message}",
                remedy="log in again (kubectl get skp must work with the same kubeconfig)",
            )
        case httpx.codes.FORBIDDEN:
            remedy = "ask for a role that may do this: kubectl auth can-i --list shows what you may"
            return ApiError(f"not allowed: {message}", status=403, reason=reason, remedy=remedy)
        case httpx.codes.UNPROCESSABLE_ENTITY:
            remedy = "correct the field that is named; kubectl explain skp.spec says what each one takes"
            return ApiError(message, status=422, reason=reason, remedy=remedy)
    return ApiError(message or f"HTTP {response.status_code}", status=response.status_code, reason=reason)


def _is_passing(status: int) -> bool:
    return status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR


def _pause(attempt: int) -> None:
    time.sleep(min(0.1 * 2**attempt, 2.0) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


def _way_to_server(connection: Connection) -> str:
    if connection.is_embedded:
        return "see what runs: `skyward local status`"
    return (
        f"check the cluster ({connection.title}): kubectl cluster-info; to use the control plane of this "
        "computer instead, set SKYWARD_CONTROL_PLANE=local, or unset KUBECONFIG"
    )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
