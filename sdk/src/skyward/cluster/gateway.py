"""The operator's gateway: payloads and results that are too large for an object, and live output.

Each request carries the run's ticket; the objects carry its hash. The way to it (`skyward.cluster.route`) is
looked for again whenever it does not answer, because a restarted operator may listen elsewhere.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import httpx

from skyward.cluster.api import Api
from skyward.cluster.cutter import Cutter
from skyward.cluster.lines import whole_lines
from skyward.cluster.route import GatewayRefused, Route, Routes, turned_away
from skyward.cluster.upload import OFFSET, PATIENCE_SECONDS, Upload, words
from skyward.errors import GatewayError
from skyward.wire.compression import size_of
from skyward.wire.digest import BytesLike

SILENCE_SECONDS = 60.0
"""The gateway sends a sign of life every 15 s."""
AGAIN_SECONDS = 0.5
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Gateway:
    """Uploads, downloads and follows, with the ticket of one run."""

    def __init__(self, api: Api, ticket: str, patience: float = PATIENCE_SECONDS) -> None:
        self._ticket = ticket
        self._patience = patience
        self._routes = Routes(api)

    def put_payload(
        self,
        namespace: str,
        task: str,
        pieces: Sequence[BytesLike],
        progress: Callable[[int, int], None] = lambda sent, size: None,
        trouble: Callable[[str], None] = lambda problem: None,
        stored: Callable[[int, int], None] = lambda kept, size: None,
    ) -> None:
        """Upload the calls of a Task; `progress` is told how many bytes are sent, and of how many, `trouble`
        why it has to be tried again, `stored` how many have gone into the operator's store where that takes
        longer.

        Raises ArgumentTooLarge, PayloadError or GatewayError.
        """
        size = sum(map(size_of, pieces))
        where = f"/v1/namespaces/{namespace}/tasks/{task}/payload"

        def put(offset: int, rest: Iterable[bytes | memoryview]) -> httpx.Response:
            begin = {OFFSET: str(offset)} if offset else {}
            length = {"Content-Length": str(size - offset)}
            return self._answer("PUT", where, {**begin, **length}, rest)

        def ask() -> httpx.Response:
            return self._answer("HEAD", where, {}, None)

        Upload(task, pieces, put, ask, progress, self._patience, trouble, stored).send()

    def result(self, namespace: str, task: str, start: int) -> AbstractContextManager[httpx.Response]:
        """The outcomes of a finished Task from a byte on, to be read; all of them where the status is 200.

        Raises GatewayError when it breaks, and GatewayRefused where there is no use in asking again.
        """
        where, cut = f"/v1/namespaces/{namespace}/tasks/{task}/result", {"Range": f"bytes={start}-"}
        return self._following(where, {}, SILENCE_SECONDS, None, cut if start else {})

    def offers(self, namespace: str, pool: str) -> dict[str, Any]:
        """What a pool could buy now: `offers`, best first, and `refused` candidates.

        Raises GatewayError when the operator does not say, and GatewayRefused where asking again is no use.
        """
        where, end = f"/v1/namespaces/{namespace}/pools/{pool}/offers", time.monotonic() + self._patience
        while True:
            try:
                response = self._answer("GET", where, {}, None)
                if response.is_success:
                    return _object(response.content)
                problem = words(response)
                if response.status_code not in (429, 500, 502, 503, 504):
                    raise GatewayRefused(f"the operator does not say what pool {pool} could buy: {problem}")
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > end:
                raise GatewayError(f"the operator does not say what pool {pool} could buy: {problem}")
            time.sleep(AGAIN_SECONDS)

    def sweep(self, *, dry_run: bool, end: int) -> list[dict[str, Any]]:
        """Have the operator look for machines without a node now, and end them: what it found, by account.

        Raises GatewayError when the operator does not answer, and GatewayRefused where it says no.
        """
        asked = json.dumps({"dryRun": dry_run, "end": end}).encode()
        try:
            response = self._answer("POST", "/v1/sweep", {"Content-Type": "application/json"}, asked)
        except httpx.TransportError as error:
            raise GatewayError(f"the operator does not answer: {error or type(error).__name__}") from error
        if not response.is_success:
            raise GatewayRefused(f"the operator looked through nothing: {words(response)}")
        accounts: list[dict[str, Any]] = _object(response.content)["accounts"]
        return accounts

    def stream(
        self, where: str, query: dict[str, str], silence: float, cutter: Cutter | None = None
    ) -> Iterator[dict[str, Any]]:
        """Objects of a stream of JSON lines.

        Raises GatewayError when it breaks, and GatewayRefused for a line that is no object.
        """
        with self._following(where, query, silence, cutter) as response:
            for line in whole_lines(response.iter_bytes()):
                yield _object(line)

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
            with (
                route.clients.use() as client,
                client.stream(
                    "GET",
                    f"{route.base}{where}",
                    params=query,
                    headers={**self._headers(route), "Accept-Encoding": "identity", **headers},
                    timeout=httpx.Timeout(30.0, read=silence),
                ) as response,
            ):
                if not response.is_success:
                    response.read()
                    if (refusal := turned_away(response)) is not None:
                        raise refusal
                    passing = response.status_code == 429 or response.status_code >= 500
                    if passing:
                        self._routes.forget()
                    kind = GatewayError if passing else GatewayRefused
                    raise kind(f"the operator does not send it: {words(response)}")
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

    def _answer(self, method: str, where: str, headers: Mapping[str, str], content: Any) -> httpx.Response:
        """The answer to one request. A gateway that gives none may be somewhere else by now."""
        try:
            route = self._routes.find()
            address, wanted = f"{route.base}{where}", {**self._headers(route), **headers}
            with route.clients.use() as client:
                response = client.request(method, address, content=content, headers=wanted)
        except httpx.TransportError:
            self._routes.forget()
            raise
        if (refusal := turned_away(response)) is not None:
            raise refusal
        if response.status_code in (429, 500, 502, 503, 504):
            self._routes.forget()
        return response


def _object(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise GatewayRefused(f"the operator's gateway sent a line that is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise GatewayRefused(f"the operator's gateway sent a line that is no JSON object: {line[:80]!r}")
    return record
