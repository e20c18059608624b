"""Calls to AWS, each in a thread: boto3 blocks.

Every call is tried once. boto3 would repeat even "no capacity", and whoever calls knows better what to do
next. Where AWS asks for a pause the whole account is quiet.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from skyward_operator.providers.aws.meanings import Call, is_throttled, meaning
from skyward_operator.providers.brake import Brake
from skyward_operator.providers.errors import ProviderError, Rejected, Transient, Unauthorized, UnknownOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward_operator.providers.aws.account import Account

NAME: Final = "aws"
THREADS: Final = 24
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
NEVER_SENT: Final = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
NO_IDENTITY: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    SSOError,
)
FAILURES: Final = (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)

logging.getLogger("botocore").setLevel(logging.INFO)  # at DEBUG it logs requests with their headers


class Clients:
    """One account's connections."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._session = account.session()
        self._brake = Brake(NAME)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="skyward-aws")
        self._clients: dict[tuple[str, str], Any] = {}
        self._making = threading.Lock()

    async def call(
        self, service: str, region: str, method: str, *, buys: bool = False, **parameters: Any
    ) -> dict[str, Any]:
        """The answer to one call."""
        answer: dict[str, Any] = await self._run(
            service, region, method, lambda client: getattr(client, method)(**parameters), buys=buys
        )
        return answer

    async def pages(
        self, service: str, region: str, method: str, key: str, **parameters: Any
    ) -> list[dict[str, Any]]:
        """What stands under `key` in all pages."""

        def read(client: Any) -> list[dict[str, Any]]:
            return [
                each
                for page in client.get_paginator(method).paginate(**parameters)
                for each in page.get(key, ())
            ]

        found: list[dict[str, Any]] = await self._run(service, region, method, read)
        return found

    def close(self) -> None:
        """Let go of connections; what is under way ends with its time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    async def _run(
        self, service: str, region: str, method: str, work: Callable[[Any], Any], *, buys: bool = False
    ) -> Any:
        self._brake.check()
        action = "".join(word.capitalize() for word in method.split("_"))
        call = Call(f"{service}:{action}", region, buys)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: work(self._client(service, region)))
        except ClientError as error:
            raise self._refusal(error, call) from None
        except FAILURES as error:
            raise failure(error, call) from None

    def _client(self, service: str, region: str) -> Any:
        with self._making:
            if (service, region) not in self._clients:
                account = self._account
                self._clients[service, region] = self._session.client(
                    service,
                    region_name=region,
                    endpoint_url=account.endpoint,
                    config=Config(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=SILENCE_SECONDS,
                        retries={"mode": "standard", "total_max_attempts": 1},
                        max_pool_connections=THREADS,
                        # a Secret's keys go to the Secret's endpoint or to AWS, wherever the operator's go
                        ignore_configured_endpoint_urls=account.keys is not None,
                    ),
                )
            return self._clients[service, region]

    def _refusal(self, error: ClientError, call: Call) -> ProviderError:
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        message = str(answer.get("Error", {}).get("Message", ""))
        if is_throttled(code):
            return self._brake.pull(None)
        return meaning(code, message, int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)), call)


def failure(error: Exception, call: Call) -> ProviderError:
    """What a call without an answer means. A connection that was never made did nothing."""
    if isinstance(error, NO_IDENTITY):
        what = "give the operator a role or access keys, or refer to a Secret by credentialsRef"
        return Unauthorized(f"aws: {call}: the operator has no AWS identity that works ({error}); {what}")
    if isinstance(error, ParamValidationError):
        return Rejected(f"aws: {call}: a parameter has a form that AWS does not take")  # its text has values
    if isinstance(error, NEVER_SENT):
        return Transient(f"aws: {call}: AWS cannot be reached: {error}")
    text = f"aws: {call}: no answer: {error or type(error).__name__}"
    return UnknownOutcome(text) if call.buys else Transient(text)
