"""How to reach the API server: from a kubeconfig or a service account, without the kubernetes package.

A bearer token is asked for again with each request, so that a rotated service-account token, a
rewritten token file or an expired exec credential is noticed without a restart. No token and no key
is ever part of a repr or a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    import ssl

    from skyward_operator.kube.tokens import TokenSource

_CONNECT_SECONDS: Final = 5.0
_USER_AGENT: Final = "skyward-operator/0.1"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One API server and who we are there."""

    server: str
    """`https://host:port`, without a slash at the end."""
    source: str
    """Where this comes from, for people."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    token: TokenSource | None = field(default=None, repr=False)
    namespace: str | None = None

    def open_session(
        self, *middlewares: aiohttp.ClientMiddlewareType, connections: int = 64
    ) -> aiohttp.ClientSession:
        """A session that authenticates each request; the caller closes it."""
        connector = aiohttp.TCPConnector(
            limit=connections, ssl=self.tls if self.tls is not None else True, keepalive_timeout=75
        )
        chain: list[aiohttp.ClientMiddlewareType] = [*middlewares]
        if self.token is not None:
            chain.insert(0, _Bearer(self.token))
        return aiohttp.ClientSession(
            connector=connector,
            middlewares=chain,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            headers={"User-Agent": _USER_AGENT, "Accept": "application/json"},
            trust_env=False,
            auto_decompress=True,
        )


class _Bearer:
    def __init__(self, token: TokenSource) -> None:
        self._token = token

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["Authorization"] = f"Bearer {await self._token.get()}"
        response = await handler(request)
        if response.status == 401:
            self._token.expire()
        return response
