"""The operator's gateway: payloads and results that are too large for an object, and live output.

Each request carries the run's ticket; the objects carry its hash. The way to it (`skyward.cluster.route`) is
looked for again whenever it does not answer, because a restarted operator may listen elsewhere.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import httpx

from skyward.cluster.api import Api
from skyward.cluster.cutter import Cutter
from skyward.cluster.route import GatewayRefused, Route, Routes, turned_away
from skyward.errors import ArgumentTooLarge, ControlPlaneError, GatewayError, PayloadError

PATIENCE_SECONDS = 120.0
SILENCE_SECONDS = 60.0
"""The gateway sends a sign of life every 15 s."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_CHUNK = 1024 * 1024
_PAUSE_SECONDS = 0.5


class Gateway:
    """Uploads, downloads and follows, with the ticket of one run."""

    def __init__(self, api: Api, ticket: str, patience: float = PATIENCE_SECONDS) -> None:
        self._ticket = ticket
        self._patience = patience
        self._routes = Routes(api)

    def put_payload(self, namespace: str, task: str, payload: bytes) -> None:
        """Upload the calls of a Task. Raises ArgumentTooLarge, PayloadError or GatewayError."""
        response = self._persistently(
            lambda route: route.client.put(
                f"{route.base}/v1/namespaces/{namespace}/tasks/{task}/payload",
                content=_chunks(payload),
                headers={**self._headers(route), "Content-Length": str(len(payload))},
            )
        )
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise ArgumentTooLarge(
                f"the arguments take {len(payload):,} bytes, which the operator refuses: {_words(response)}",
                task=task,
                remedy="put the data into a volume or object store and pass its place, "
                "or raise the operator's limit (SKYWARD_LARGEST_PAYLOAD)",
            )
        if not response.is_success:
            raise PayloadError(
                f"the operator refused the arguments of task {task}: {_words(response)}",
                task=task,
                remedy="send the call again; if it happens again, install the same version here and there",
            )

    def result(self, namespace: str, task: str, start: int) -> AbstractContextManager[httpx.Response]:
        """The outcomes of a finished Task from a byte on, to be read; all of them where the status is 200.

        Raises GatewayError when it breaks, and GatewayRefused where there is no use in asking again.
        """
        where, cut = f"/v1/namespaces/{namespace}/tasks/{task}/result", {"Range": f"bytes={start}-"}
        return self._following(where, {}, SILENCE_SECONDS, None, cut if start else {})

    def stream(
        self, where: str, query: dict[str, str], silence: float, cutter: Cutter | None = None
    ) -> Iterator[dict[str, Any]]:
        """Objects of a stream of JSON lines. Raises GatewayError when it breaks."""
        with self._following(where, query, silence, cutter) as response:
            for line in response.iter_lines():
                if line.strip():
                    yield json.loads(line)

    def follow_results(self, namespace: str, task: str, start: int, cutter: Cutter) -> Iterator[bytes]:
        """The delivery of a Task's outcomes (`skyward.wire.delivery`) from a byte on, as it comes.

        Raises GatewayError when it breaks, and GatewayRefused where there is no use in asking again.
        """
        where = f"/v1/namespaces/{namespace}/tasks/{task}/results"
        query = {"follow": "1", "from": str(start)}
        with self._following(where, query, SILENCE_SECONDS, cutter) as response:
            yield from response.iter_raw()

    @contextmanager
    def _following(
        self,
        where: str,
        query: dict[str, str],
        silence: float,
        cutter: Cutter | None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Iterator[httpx.Response]:
        try:
            route = self._routes.find()
            with route.client.stream(
                "GET",
                f"{route.base}{where}",
                params=query,
                headers={**self._headers(route), "Accept-Encoding": "identity", **headers},
                timeout=httpx.Timeout(30.0, read=silence),
            ) as response:
                if not response.is_success:
                    response.read()
                    if (refusal := turned_away(response)) is not None:
                        raise refusal
                    passing = response.status_code == 429 or response.status_code >= 500
                    if passing:
                        self._routes.forget()
                    kind = GatewayError if passing else GatewayRefused
                    raise kind(f"the operator does not send it: {_words(response)}")
                with (cutter or Cutter()).around(response):
                    yield response
        except (httpx.TransportError, httpx.StreamError) as error:
            self._routes.forget()
            raise GatewayError(f"the operator's gateway does not answer: {error}") from error

    def place(self, where: str) -> tuple[str, dict[str, str], Route]:
        """The whole address of a path, the headers to go there with, and the way, for what is no plain
        request."""
        route = self._routes.find()
        return f"{route.base}{where}", self._headers(route), route

    def forget_address(self) -> None:
        """It does not answer there: look again where it is."""
        self._routes.forget()

    def close(self) -> None:
        """Close all connections; a stream that is being read ends."""
        self._routes.close()

    def _headers(self, route: Route) -> dict[str, str]:
        return {**route.headers(), "Skyward-Ticket": self._ticket}

    def _persistently(self, send: Callable[[Route], httpx.Response]) -> httpx.Response:
        """Send until there is an answer that is final; an operator that restarts is waited for."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                response = send(self._routes.find())
                if (refusal := turned_away(response)) is not None:
                    raise refusal
                if response.status_code not in (429, 500, 502, 503, 504):
                    return response
                problem = _words(response)
            except GatewayRefused:
                raise
            except (httpx.TransportError, ControlPlaneError) as error:
                problem = str(error) or type(error).__name__
            self._routes.forget()
            if time.monotonic() > deadline:
                raise GatewayError(
                    f"the operator's gateway did not answer for {self._patience:.0f} s: {problem}",
                    remedy="see whether the operator runs: `skyward local status`, or "
                    "kubectl -n skyward-system get pods",
                )
            time.sleep(_PAUSE_SECONDS)


def _chunks(payload: bytes) -> Iterator[bytes]:
    view = memoryview(payload)
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])


def _words(response: httpx.Response) -> str:
    try:
        body = response.json()
        text = body.get("message") or body.get("error") or response.text
    except (ValueError, AttributeError):
        text = response.text
    return f"{text[:300].strip()} (HTTP {response.status_code})"
