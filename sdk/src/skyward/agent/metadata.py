"""Asks the machine's metadata service whether the provider takes the machine back, until it says so once.

The operator says with HELLO where that service is; it is asked on whether an operator is connected or not.
What cannot be asked is logged once and asked again: a machine that is taken without a word is met elsewhere.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

_ANSWER_SECONDS = 2.0
_LARGEST_ANSWER = 64 * 1024
_LATEST = 24 * 3600.0
"""Seconds: a notice of a later time is of a clock that is wrong."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The service is on the machine's own link: a proxy would ask for another machine."""

log = logging.getLogger("skyward.agent")


class MetadataWatch:
    """The question, asked again and again. `taken` is called once, with the seconds that are left."""

    def __init__(self, taken: Callable[[float], None], environment: Mapping[str, str] = os.environ) -> None:
        self._taken = taken
        self._environment = environment
        self._asked: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._due: float | None = None
        self._trouble = ""

    @property
    def left(self) -> float | None:
        """Seconds until the machine is taken, once that was said."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def ask(self, metadata: dict[str, Any]) -> None:
        """Ask there from now on; the same place again changes nothing."""
        if metadata == self._asked:
            return
        self._asked = metadata
        self.stop()
        if self._due is None:
            self._task = asyncio.create_task(self._run(metadata), name="metadata")

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, metadata: dict[str, Any]) -> None:
        while True:
            try:
                left = await asyncio.to_thread(seconds_left, metadata, self._environment)
            except (OSError, ValueError) as error:
                self._complain(f"the metadata service cannot be asked: {error}")
            else:
                self._trouble = ""
                if left is not None:
                    break
            await asyncio.sleep(max(0.1, float(metadata.get("every") or 5.0)))
        self._due = time.monotonic() + left
        log.warning("the provider takes this machine back in %.0f s", left)
        self._taken(left)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%s", trouble)


def seconds_left(metadata: Mapping[str, Any], environment: Mapping[str, str]) -> float | None:
    """Seconds until the machine is taken, None while nothing is announced. Raises OSError, ValueError."""
    base = environment.get(metadata.get("base_variable") or "") or metadata.get("base") or ""
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"{base!r} is no address of a metadata service")
    headers = dict(metadata.get("headers") or {})
    if metadata.get("token_path"):
        token = _answer(base + metadata["token_path"], metadata.get("token_headers") or {}, "PUT")
        headers[metadata["token_header"]] = (token or b"").decode("ascii").strip()
    answer = _answer(base + metadata["path"], headers)
    if answer is None:
        return None
    told = json.loads(answer)
    if not isinstance(told, dict) or not isinstance(told.get(metadata["time_field"]), str):
        raise ValueError(f"a notice without {metadata['time_field']!r}")
    at = datetime.fromisoformat(told[metadata["time_field"]])
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(_LATEST, max(0.0, at.timestamp() - time.time()))


def _answer(url: str, headers: Mapping[str, str], method: str = "GET") -> bytes | None:
    """The body of a good answer, None for 404."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - checked before
    try:
        with contextlib.closing(_direct.open(request, timeout=_ANSWER_SECONDS)) as response:
            body: bytes = response.read(_LARGEST_ANSWER)
            return body
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code == 404:
                return None
        raise OSError(f"{url} answers {error.code}") from None
