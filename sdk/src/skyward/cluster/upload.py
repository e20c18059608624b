"""A payload goes out: from where it lies in memory, on from where it was cut, with how far it is.

The bytes are never together in one place here: the package of the calls comes first, and behind it the large
parts of their arguments, a slice at a time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import httpx

from skyward.cluster.route import GatewayRefused
from skyward.errors import ArgumentTooLarge, ControlPlaneError, GatewayError, PayloadError
from skyward.wire.digest import BytesLike

PATIENCE_SECONDS = 120.0
"""How long a gateway that takes nothing is asked again."""
OFFSET, COMPLETE, KEPT = "Upload-Offset", "Upload-Complete", "Upload-Kept"
_SLICE = 256 * 1024
_PAUSE_SECONDS = 0.25
_PASSING = (408, 409, 429, 500, 502, 503, 504)

type Put = Callable[[int, Iterable[bytes | memoryview]], httpx.Response]
"""Sends the bytes from this one on."""
type Ask = Callable[[], httpx.Response]
"""Asks how much is there."""


class Upload:
    """One payload on its way. `send` it once."""

    def __init__(
        self,
        task: str,
        pieces: Sequence[BytesLike],
        put: Put,
        ask: Ask,
        progress: Callable[[int, int], None],
        patience: float = PATIENCE_SECONDS,
        trouble: Callable[[str], None] = lambda problem: None,
        stored: Callable[[int, int], None] = lambda kept, size: None,
    ) -> None:
        self._task = task
        self._pieces = [memoryview(piece).cast("B") for piece in pieces]
        self._size = sum(piece.nbytes for piece in self._pieces)
        self._put = put
        self._ask = ask
        self._progress = progress
        self._patience = patience
        self._trouble = trouble
        self._stored = stored

    def send(self) -> None:
        """Return when the gateway has all of it, or the Task has ended.

        Raises ArgumentTooLarge, PayloadError or GatewayError.
        """
        there: int | None = 0
        furthest, kept, deadline = 0, 0, time.monotonic() + self._patience
        while True:
            try:
                there = self._there() if there is None else there
                if there is None:
                    return
                if there > furthest:
                    furthest, deadline = there, time.monotonic() + self._patience
                response = self._put(there, self._rest(there))
                if response.status_code == httpx.codes.ACCEPTED:
                    # All of it is there, and goes into the operator's store: it is not sent again.
                    now = int(response.headers.get(KEPT, "0"))
                    self._stored(now, self._size)
                    if now > kept:
                        kept, deadline = now, time.monotonic() + self._patience
                    there, problem = self._size, f"{now} of {self._size} bytes are in its store"
                    self._give_up_after(deadline, problem)
                    continue
                if response.is_success or response.status_code == httpx.codes.GONE:
                    return  # gone: the Task has ended, maybe with what an earlier try brought; it says how
                problem = words(response)
                if response.status_code not in _PASSING and not self._is_worth_another_try(response, there):
                    raise self._refused(response)
            except (httpx.TransportError, ControlPlaneError) as error:
                if isinstance(error, ArgumentTooLarge | PayloadError | GatewayRefused):
                    raise
                problem = str(error) or type(error).__name__
            there = None
            self._trouble(problem)
            self._give_up_after(deadline, problem)
            time.sleep(_PAUSE_SECONDS)

    def _give_up_after(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise GatewayError(
                f"the operator's gateway takes no arguments since {self._patience:.0f} s: {problem}",
                task=self._task,
                remedy="see whether the operator runs: `skyward local status`, or "
                "kubectl -n skyward-system get pods",
            )

    def _there(self) -> int | None:
        """The first byte that the gateway does not have; None when it has all of it."""
        response = self._ask()
        if response.headers.get(COMPLETE) == "?1":
            return None
        if response.status_code in _PASSING:
            raise GatewayError(f"the operator does not say how much it has: {words(response)}")
        offset = int(response.headers.get(OFFSET, "0"))
        return offset if offset <= self._size else 0

    def _rest(self, start: int) -> Iterator[memoryview]:
        place = 0
        for piece in self._pieces:
            for begin in range(max(0, start - place), piece.nbytes, _SLICE):
                part = piece[begin : begin + _SLICE]
                yield part
                self._progress(place + begin + part.nbytes, self._size)
            place += piece.nbytes

    def _is_worth_another_try(self, response: httpx.Response, began: int) -> bool:
        """What was there before this connection may be what was wrong; it is dropped then."""
        return response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and began > 0

    def _refused(self, response: httpx.Response) -> ArgumentTooLarge | PayloadError:
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            return ArgumentTooLarge(
                f"the arguments take {self._size:,} bytes, which the operator refuses: {words(response)}",
                task=self._task,
                remedy="put the data into a volume or object store and pass its place, "
                "or raise the operator's limit (SKYWARD_LARGEST_PAYLOAD)",
            )
        remedy = "send the call again; if it happens again, install the same version here and there"
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            remedy = (
                "leave the arguments as they are until the call was sent (does another thread write to them?)"
            )
        elif response.status_code == httpx.codes.INSUFFICIENT_STORAGE:
            remedy = "free space where the operator keeps its data (`skyward local status` says where)"
        return PayloadError(
            f"the operator refused the arguments of task {self._task}: {words(response)}",
            task=self._task,
            remedy=remedy,
        )


def words(response: httpx.Response) -> str:
    """What the gateway said."""
    try:
        body = response.json()
        text = body.get("message") or body.get("error") or response.text
    except (ValueError, AttributeError):
        text = response.text
    return f"{text[:300].strip()} (HTTP {response.status_code})"
