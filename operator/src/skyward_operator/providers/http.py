"""HTTP to a provider's API, with one question answered for each failure: may something have been done?

A connection that was never made did nothing. Once a request that changes something was sent, only an answer
tells; without one, and with a 5xx, the outcome is unknown. What a provider's own error codes mean is its
adapter's to say.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import httpx

from skyward_operator.providers.brake import Brake
from skyward_operator.providers.errors import ProviderError, Rejected, Transient, Unauthorized, UnknownOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MESSAGE_CHARACTERS = 500
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is an error: its status, and what the provider wrote."""

    status: int
    code: str
    message: str


type Meaning = Callable[[Answer], ProviderError | None]
"""What a provider's error code means; None: nothing in particular."""


class Http:
    """One account's connection. Secrets stay in its headers."""

    def __init__(
        self, provider: str, endpoint: str, headers: Mapping[str, str], meaning: Meaning = lambda _: None
    ) -> None:
        self._provider = provider
        self._meaning = meaning
        self._brake = Brake(provider)
        self._client = httpx.AsyncClient(
            base_url=endpoint,
            headers=dict(headers),
            timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not is_loopback(endpoint),
            follow_redirects=False,
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON there."""
        return await self._ask("GET", path, params=params, changes=False)

    async def post(self, path: str, document: Mapping[str, Any], *, buys: bool = False) -> Any:
        """Send JSON. `buys`: a lost answer is UnknownOutcome; else the same can be sent again."""
        return await self._ask("POST", path, json=document, changes=buys)

    async def delete(self, path: str) -> Any:
        """Delete what is there; can be repeated."""
        return await self._ask("DELETE", path, changes=False)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, *, changes: bool, **more: Any) -> Any:
        self._brake.check()
        where = f"{method} {path}"
        try:
            response = await self._client.request(method, path, **more)
        except NEVER_SENT as error:
            raise Transient(f"{self._provider} cannot be reached: {words(error)}") from error
        except httpx.TransportError as error:
            lost(changes, f"{self._provider} did not answer {where}: {words(error)}", error)
        if not response.is_success:
            self._refuse(response, where, changes=changes)
        return self._read(response, where, changes=changes)

    def _read(self, response: httpx.Response, where: str, *, changes: bool) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            lost(changes, f"{self._provider} answered {where} with something that is not JSON", error)

    def _refuse(self, response: httpx.Response, where: str, *, changes: bool) -> NoReturn:
        """Raise what a refusal means: first by the provider's code, else by the status."""
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise self._brake.pull(retry_after(response))
        answer = read_error(response)
        meant = self._meaning(answer)
        if meant is not None:
            raise meant
        text = (
            f"{self._provider} answered {where} with {answer.status} {answer.code} {answer.message}".rstrip()
        )
        if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Unauthorized(text)
        if response.is_server_error:
            lost(changes, text, None)
        raise Rejected(text)


def lost(changes: bool, text: str, cause: Exception | None) -> NoReturn:
    """Raise what a missing answer means."""
    error: ProviderError = UnknownOutcome(text) if changes else Transient(text)
    raise error from cause


def read_error(response: httpx.Response) -> Answer:
    """`{"error": {"code", "message"}}`, or only the status: a page of some proxy says nothing to anybody."""
    code, message = "", ""
    try:
        document = response.json()
        if isinstance(document, dict) and isinstance(error := document.get("error"), dict):
            code, message = str(error.get("code", "")), str(error.get("message", ""))
    except ValueError:
        pass
    return Answer(response.status_code, code, message[:MESSAGE_CHARACTERS])


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the provider asked for; a date is not taken, clocks differ."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None


def words(error: Exception) -> str:
    """An error in words, also where it has none of its own."""
    return str(error) or type(error).__name__


def is_loopback(endpoint: str) -> bool:
    """Whether a service runs on this computer: no proxy is asked for it then."""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
