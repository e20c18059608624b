"""Bearer tokens, from wherever a kubeconfig or a cluster keeps them."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from skyward_operator.kube.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REREAD_SECONDS: Final = 10.0
_EXEC_SECONDS: Final = 30.0
_EARLY: Final = timedelta(seconds=60)


class TokenSource(Protocol):
    """Where the bearer token of a request comes from."""

    async def get(self) -> str:
        """The token to use now."""
        ...

    def expire(self) -> None:
        """The API server refused the last token: do not give it again if another can be had."""
        ...


class StaticToken:
    """A token that is written in the kubeconfig."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get(self) -> str:
        """The token."""
        return self._token

    def expire(self) -> None:
        """Nothing else can be had."""


class FileToken:
    """A token in a file that somebody else rotates, as the kubelet does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at = -_REREAD_SECONDS

    async def get(self) -> str:
        """The file's content, read again every few seconds."""
        if not self._token or monotonic() - self._read_at >= _REREAD_SECONDS:
            try:
                self._token = self._path.read_text().strip()
            except OSError as error:
                if not self._token:
                    raise CredentialsError(f"cannot read the token file {self._path}: {error}") from error
            self._read_at = monotonic()
        return self._token

    def expire(self) -> None:
        """Read the file again for the next request."""
        self._read_at = -_REREAD_SECONDS


class ExecToken:
    """A token from a kubeconfig's exec plugin (EKS, GKE, OIDC helpers), kept until it is about to expire."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], api_version: str) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._api_version = api_version
        self._token = ""
        self._until: datetime | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> str:
        """The token; runs the plugin where there is none that still holds."""
        async with self._lock:
            if not self._token or (self._until is not None and datetime.now(UTC) >= self._until - _EARLY):
                await self._run()
            return self._token

    def expire(self) -> None:
        """Run the plugin for the next request."""
        self._token = ""

    async def _run(self) -> None:
        name = self._command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=os.environ | self._environment | {"KUBERNETES_EXEC_INFO": self._request()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise CredentialsError(f"cannot run the kubeconfig's exec plugin {name}: {error}") from error
        try:
            async with asyncio.timeout(_EXEC_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise CredentialsError(
                f"the kubeconfig's exec plugin {name} gave no token in {_EXEC_SECONDS:.0f} s"
            ) from error
        if process.returncode:
            raise CredentialsError(
                f"the kubeconfig's exec plugin {name} ended with {process.returncode}; run it by hand"
            )
        self._take(name, output)

    def _take(self, name: str, output: bytes) -> None:
        try:
            status: dict[str, Any] = json.loads(output)["status"]
            token = str(status["token"])
        except (ValueError, KeyError, TypeError):
            raise CredentialsError(
                f"the kubeconfig's exec plugin {name} gave no token (client certificates are not supported)"
            ) from None
        expires = status.get("expirationTimestamp")
        self._until = datetime.fromisoformat(str(expires)) if expires else None
        self._token = token

    def _request(self) -> str:
        return json.dumps(
            {"apiVersion": self._api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        )
