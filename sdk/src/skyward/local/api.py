"""The few requests that starting and stopping a control plane needs, over one kept connection.

Standard library only and synchronous: the supervisor and `skyward local` do a dozen requests in all, and each
import would be paid at every start. Everything else talks to the API server through `skyward.cluster`.
"""

import contextlib
import http.client
import json
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

FIELD_MANAGER = "skyward-local"
_PATIENCE_ATTEMPTS = 25
_PATIENCE_SECONDS = 0.2

type Object = dict[str, Any]


class ApiError(Exception):
    """The server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ApiUnavailable(Exception):
    """The server did not answer."""


class Api:
    """A client for one API server; not for use by two threads at once."""

    def __init__(self, server: str, ca_file: Path, token: str, *, timeout: float = 5.0) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def is_ready(self) -> bool:
        """True when `/readyz` answers exactly `ok` (the report of a failing check contains the word too)."""
        try:
            status, body = self._send("GET", "/readyz")
        except ApiUnavailable:
            return False
        return status == http.HTTPStatus.OK and body == b"ok"

    def get(self, path: str) -> Object | None:
        """Answer an object or a list, or None where there is none.

        Raises:
            ApiError: the server refused.
            ApiUnavailable: it did not answer.
        """
        status, body = self._patiently("GET", path)
        return None if status == http.HTTPStatus.NOT_FOUND else _object(status, body)

    def apply(self, path: str, manifest: Object) -> Object:
        """Create or update by server-side apply, owning every field that the manifest has.

        Raises:
            ApiError: the server refused.
            ApiUnavailable: it did not answer.
        """
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        data = json.dumps(manifest).encode()  # JSON is YAML
        return _object(*self._patiently("PATCH", path + query, data, "application/apply-patch+yaml"))

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone is fine.

        Raises:
            ApiError: the server refused.
            ApiUnavailable: it did not answer.
        """
        status, body = self._patiently("DELETE", path)
        if status != http.HTTPStatus.NOT_FOUND:
            _object(status, body)

    def _patiently(
        self, method: str, path: str, data: bytes | None = None, kind: str = ""
    ) -> tuple[int, bytes]:
        """Try again while the server asks for patience, as it does while its caches fill after a start."""
        for _ in range(_PATIENCE_ATTEMPTS):
            status, body = self._send(method, path, data, kind)
            if status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            time.sleep(_PATIENCE_SECONDS)
        return status, body

    def _send(self, method: str, path: str, data: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        headers = {**self._headers, "Content-Type": kind} if kind else self._headers
        try:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self._timeout, context=self._context
                )
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            with contextlib.suppress(OSError):
                self.close()
            raise ApiUnavailable(f"https://{self._host}:{self._port}: {error}") from error


def _object(status: int, body: bytes) -> Object:
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = {"message": body[:200].decode(errors="replace")}
    if status >= http.HTTPStatus.BAD_REQUEST:
        raise ApiError(status, str(parsed.get("message", "")))
    result: Object = parsed
    return result
