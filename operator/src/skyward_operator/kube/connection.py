"""One request to the API server: sent until there is an answer, or until its deadline.

Retries what may succeed later (no connection, no answer in time, 429, 5xx) with growing, jittered
delays; 429 waits as long as the server asks. Everything else is raised at once as an ApiError.
Bodies are never logged and never become part of a message.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import orjson

from skyward_operator.kube.errors import ApiError, CredentialsError, Throttled, Unavailable, from_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from skyward_operator.kube.credentials import Credentials
    from skyward_operator.metrics import Metrics

logger = logging.getLogger(__name__)

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

_RETRIED_CODES: Final = frozenset({429, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER: Final = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: one attempt, the whole call, and the delays between attempts."""

    attempt: float = 10.0
    deadline: float = 30.0
    first_delay: float = 0.1
    longest_delay: float = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to send; `what` names the object in messages and `kind` is the metrics' label."""

    verb: str
    method: str
    path: str
    what: str
    kind: str
    params: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Answer:
    """The parsed body, and how many attempts came before: after some, an earlier one may have acted."""

    body: dict[str, Any]
    earlier_attempts: int = 0


class Connection:
    """A keep-alive session with one API server; use as `async with`, on one event loop."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        metrics: Metrics | None = None,
        patience: Patience = Patience(),
    ) -> None:
        self._credentials = credentials
        self._metrics = metrics
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = self._credentials.open_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the session and its sockets."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self, request: Request, *, before: Callable[[], None] | None = None, patience: Patience | None = None
    ) -> Answer:
        """The answer to a request; `before` runs ahead of every attempt and may forbid it by raising.

        Raises Failed, which carries the ApiError and how many attempts came before it.
        """
        limits = patience or self._patience
        # orjson takes no lone surrogates, which the names of files bring into messages
        body = json.dumps(request.body, separators=(",", ":")).encode() if request.body is not None else None
        started, attempts = monotonic(), 0
        while True:
            if before is not None:
                before()
            left = limits.deadline - (monotonic() - started)
            outcome = await self._attempt(request, body, max(0.05, min(limits.attempt, left)))
            if isinstance(outcome, dict):
                return Answer(outcome, attempts)
            delay = _delay(outcome, attempts, limits)
            left = limits.deadline - (monotonic() - started)
            # After a 401 the session has asked for a fresh token: that is worth one more attempt.
            worth_it = outcome.may_succeed_later or (outcome.error.code == 401 and not attempts)
            if not worth_it or delay >= left:
                raise Failed(outcome.error, attempts) from outcome.cause
            logger.debug("%s; again in %.2f s", outcome.error, delay)
            attempts += 1
            await asyncio.sleep(delay)

    async def _attempt(
        self, request: Request, body: bytes | None, seconds: float
    ) -> dict[str, Any] | _Refusal:
        if self._session is None:
            raise RuntimeError("the connection is not open")
        started, code = monotonic(), 0
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    request.method,
                    self._credentials.server + request.path,
                    params=request.params,
                    data=body,
                    headers={"Content-Type": request.content_type} if body is not None else None,
                ) as response,
            ):
                raw = await response.read()
                code = response.status
                if code < 400:
                    parsed: dict[str, Any] = orjson.loads(raw)
                    return parsed
                return _refusal(request, response, raw)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, CredentialsError) as error:
            # ValueError: half an answer, or one of something that is no API server.
            code = 0
            return _Refusal(_no_answer(request, error, seconds), may_succeed_later=True, cause=error)
        finally:
            if self._metrics is not None:
                self._metrics.requested(request.verb, request.kind, code, monotonic() - started)


class Failed(Exception):
    """A request that ended in an ApiError, with how many attempts came before the last."""

    def __init__(self, error: ApiError, earlier_attempts: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.earlier_attempts = earlier_attempts


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: ApiError
    may_succeed_later: bool
    retry_after: float | None = None
    cause: BaseException | None = None


def _refusal(request: Request, response: aiohttp.ClientResponse, raw: bytes) -> _Refusal:
    try:
        status = orjson.loads(raw)
    except ValueError:
        status = {}
    error = from_response(
        request.verb, request.what, response.status, status if isinstance(status, dict) else {}
    )
    later = response.status in _RETRIED_CODES
    return _Refusal(error, later, _retry_after(response.headers.get("Retry-After")))


def _no_answer(request: Request, error: BaseException, seconds: float) -> Unavailable:
    why = (
        f"no answer in {seconds:.0f} s"
        if isinstance(error, TimeoutError)
        else str(error) or type(error).__name__
    )
    return Unavailable(f"{request.verb} {request.what}: {why}")


def _delay(refusal: _Refusal, attempts: int, limits: Patience) -> float:
    backoff = min(limits.longest_delay, limits.first_delay * 2.0 ** min(attempts, 30))
    backoff *= 0.5 + 0.5 * random.random()  # noqa: S311 - spreads retries, no secret
    if refusal.retry_after is not None and isinstance(refusal.error, (Throttled, Unavailable)):
        return max(backoff, refusal.retry_after)
    return backoff


def _retry_after(header: str | None) -> float | None:
    try:
        return min(_LONGEST_RETRY_AFTER, max(0.0, float(header))) if header else None
    except ValueError:
        return None
