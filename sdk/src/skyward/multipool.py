"""`MultiPool`: several pools for the length of one `with`, made side by side and ended together."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed, wait
from functools import partial
from types import TracebackType

from skyward import termination
from skyward.errors import SkywardError
from skyward.functions import activate, deactivate
from skyward.pools import Pool
from skyward.validation import instance

_EXAMPLE = "sky.Compute(provider=sky.Local())"


class MultiPool:
    """`with sky.MultiPool(sky.Compute(...), sky.Compute(...)) as (first, second):`.

    It takes as long as its slowest pool. When one of them cannot be had, the others are released before the
    error is raised. Calls are sent to one of them: `>> first`.
    """

    def __init__(self, *pools: Pool) -> None:
        for pool in pools:
            instance("every argument of MultiPool()", pool, Pool, _EXAMPLE)
        if not pools:
            raise TypeError(f"MultiPool() needs pools, such as {_EXAMPLE}")
        if len({pool.name for pool in pools}) < len(pools):
            raise ValueError(
                f"each pool of MultiPool() is another one, got {', '.join(p.name for p in pools)}"
            )
        self.pools = pools

    def __enter__(self) -> tuple[Pool, ...]:
        termination.begin()
        try:
            with termination.interruptible():
                self._open()
        except BaseException as error:
            termination.end()
            if isinstance(error, (SkywardError, KeyboardInterrupt)):  # our frames explain nothing
                raise error.with_traceback(None) from error.__cause__
            raise
        for pool in self.pools:
            activate(pool)
        return self.pools

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for pool in reversed(self.pools):
            deactivate(pool)
        try:
            with termination.interruptible(closing=True):
                self._close(self.pools, error)
        except KeyboardInterrupt as again:
            raise again.with_traceback(None) from None
        finally:
            termination.end()

    def _open(self) -> None:
        aborted = threading.Event()

        def open_one(pool: Pool) -> None:
            try:
                pool.open(aborted)
            except BaseException:
                aborted.set()  # nobody waits for the others any more
                raise

        opening = _SideBySide([partial(open_one, pool) for pool in self.pools])
        try:
            opening.wait()
        except BaseException as error:
            aborted.set()
            opening.end()
            self._close([pool for pool in self.pools if pool.is_open], error)
            raise

    def _close(self, pools: Sequence[Pool], error: BaseException | None) -> None:
        closing = _SideBySide([partial(pool.close, error) for pool in pools])
        closing.end()
        closing.wait()


class _SideBySide:
    """Jobs in threads of their own, which no end of the program waits for."""

    def __init__(self, jobs: Iterable[Callable[[], None]]) -> None:
        self._futures: list[Future[None]] = []
        for job in jobs:
            future: Future[None] = Future()
            self._futures.append(future)
            threading.Thread(target=_run, args=(job, future), daemon=True).start()

    def wait(self) -> None:
        """Return when all are done; raise what one of them has raised, at once."""
        for future in as_completed(self._futures):
            future.result()

    def end(self) -> None:
        """Return when all are done."""
        wait(self._futures)


def _run(job: Callable[[], None], future: Future[None]) -> None:
    try:
        job()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
