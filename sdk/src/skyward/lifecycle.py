"""How a pool begins and ends: created, waited for, deleted, proved absent, and summed up in one line.

Whatever happens in between, the end runs: after an exception, after Ctrl-C or SIGTERM, and when the
interpreter exits. Only a second Ctrl-C stops it, and then the person is told how to finish later.
"""

import asyncio
import atexit
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyward import session as sessions
from skyward import termination
from skyward.cluster.api import ApiError
from skyward.console import open_console
from skyward.console.board import count, elapsed
from skyward.contract.names import ANNOTATION_RENEWED, LABEL_POOL, NODE, POOL
from skyward.errors import PoolError, PoolNotFound, SkywardError
from skyward.heartbeat import sign
from skyward.image import check_python, client_python
from skyward.manifest import candidate_objects, object_name, pool_object
from skyward.market import chosen_candidates, read_offers, reading_order, some
from skyward.narration import cost_words
from skyward.poolview import PoolView
from skyward.session import HURRY_SECONDS, Session
from skyward.spec import Options, Spec
from skyward.tasks import TaskHandle
from skyward.termination import Terminated

END_SECONDS = 5.0
"""How long Tasks whose outcomes are all here may take to end, before they are cancelled instead."""
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(slots=True)
class Tally:
    """What the summary line counts."""

    began: float = field(default_factory=time.monotonic)
    calls: int = 0
    started: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, calls: int) -> None:
        """Count calls that have ended."""
        with self._lock:
            self.calls += calls


def new_name() -> str:
    """A name for a pool of this program, such as `digits-1a2b`."""
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "session"
    return object_name("notebook" if "ipykernel" in script else script, 4)


def checked_name(name: str) -> str:
    """`name` if the API server will take it for a pool. Raises TypeError or ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r} is not valid: lower-case letters, digits and hyphens, at most 40, like 'train-1'"
        )
    return name


def open_pool(
    name: str,
    specs: Sequence[Spec],
    options: Options,
    aborted: threading.Event,
    tally: Tally,
    *,
    or_find: bool = False,
) -> tuple[Session, PoolView, bool]:
    """Create the pool (or find it, without specs) and wait until it takes calls. Says whether it was created.

    With `or_find`, a pool of that name that is there already is used, and stays. Whatever goes wrong, a pool
    that was created is deleted again before the error is raised.
    """
    tally.began, tally.started = time.monotonic(), False
    for spec in specs:
        check_python(spec.image.python_minor, f"pool {name}")  # before it costs a machine
    session = sessions.acquire(open_console(options.console), options.namespace)
    view = PoolView(session, name)
    owned = bool(specs)
    try:
        if owned and or_find and session.api.get(POOL, session.namespace, name) is not None:
            owned = False
        candidates = _chosen(session, specs, options) if owned else ()
    except BaseException:
        sessions.release(session)
        raise
    try:
        if owned:
            _create(session, name, specs, options, candidates)
        else:
            _find(session, name)
    except SkywardError:
        sessions.release(session)
        raise
    except BaseException:  # it may have been created all the same
        _withdraw(session, name, owned=owned)
        raise
    try:
        if owned and options.lease_timeout is not None:
            view.keep_alive(options.lease_timeout)
        view.start()
        view.wait_usable(aborted)
        tally.started = True
    except BaseException as error:
        close_pool(session, view, options, tally, error, owned=owned)
        raise
    if options.default_compute_timeout is not None:
        limit = elapsed(options.default_compute_timeout)
        session.console.say(f"calls without a timeout of their own are stopped after {limit}")
    return session, view, owned


def close_pool(
    session: Session,
    view: PoolView,
    options: Options,
    tally: Tally,
    error: BaseException | None,
    *,
    owned: bool,
) -> None:
    """Cancel what still runs, delete the pool if it is this program's, wait for the proof, and sum up."""
    console = session.console
    hurried = isinstance(error, (KeyboardInterrupt, Terminated))
    accepted = left = False
    try:
        if isinstance(error, (KeyboardInterrupt, Terminated)) and termination.is_leaving():
            raise error  # the second signal came while a pool inside of this one was being closed
        with _patience(session, hurried=hurried):
            open_handles = _not_ended(session.open_handles(view.name), 0.0 if hurried else END_SECONDS)
        calls = sum(handle.unfinished for handle in open_handles if not handle.is_cancelled)
        if words := _leaving_words(error, len(open_handles), calls, view.name if owned else None):
            console.say(words)
        if owned:
            view.expect_deletion()
        with _patience(session, hurried=hurried):
            for handle in open_handles:
                handle.cancel()
        if owned:
            with _patience(session, hurried=hurried):
                accepted = _ask_deletion(session, view)
            if accepted:
                _prove_deletion(
                    session, view, options.shutdown_timeout, tally, hurried=hurried, failed=error is not None
                )
        else:
            mark = ("✔ " if error is None else "✘ ") if tally.started else ""
            console.say(f"{mark}{_extent(view, tally)} · pool {view.name} stays, as it was there before")
    except (KeyboardInterrupt, Terminated):
        termination.leave()
        left = True
        goes_on = "; its deletion goes on in the background" if accepted else ""
        console.clear(
            f"left before pool {view.name} was confirmed gone{goes_on}. "
            f"Finish later: skyward down {view.name}"
            if owned
            else f"left before it was sure that the tasks are cancelled; pool {view.name} stays"
        )
        raise
    finally:
        for handle in session.open_handles(view.name):
            handle.abandon()
        view.stop()
        sessions.release(session, at_once=left)
        if session.users <= 0:
            console.close()


def _not_ended(handles: list[TaskHandle], seconds: float) -> list[TaskHandle]:
    """Those to be cancelled. A Task that has no call left is not: it is about to end by itself."""
    for handle in handles:
        handle.leave()
    end = time.monotonic() + seconds
    for handle in handles:
        if not handle.unfinished:
            handle.wait(max(0.0, end - time.monotonic()))
    return [handle for handle in handles if not handle.is_finished]


def _leaving_words(error: BaseException | None, running: int, calls: int, deleted: str | None) -> str:
    """What happens now to what still runs, and, where somebody ended the block from outside, to the pool."""
    match error:
        case KeyboardInterrupt():
            what, again = "interrupted", "; press Ctrl-C again to leave at once"
        case Terminated():
            what, again = "terminated", "; send SIGTERM again to leave at once"
        case asyncio.CancelledError():  # so Ctrl-C arrives in asyncio.run, and its loop waits for this end
            what, again = "interrupted", ""
        case _ if calls:
            what = "the block has ended" if error is None else f"{type(error).__name__} ended the block"
            whose = "that nobody has waited for" if error is None else "under way"
            return f"{what}: cancelling {count(calls, 'call')} {whose}"
        case _:
            return ""
    steps = [f"cancelling {count(running, 'running task')}"] if running else []
    steps += [f"deleting pool {deleted}"] if deleted else []
    return f"{what}: {', '.join(steps) or 'nothing was running'}{again}"


def _create(
    session: Session,
    name: str,
    specs: Sequence[Spec],
    options: Options,
    candidates: Sequence[dict[str, Any]],
) -> None:
    body = pool_object(name, session.namespace, specs, options, session.owner, candidates)
    body["metadata"]["annotations"] = {ANNOTATION_RENEWED: sign()}
    try:
        session.api.create(POOL, body)
    except ApiError as error:
        if error.status == 409:
            raise PoolError(
                f"a pool named {name} exists already",
                remedy=f"use it with sky.Compute(name={name!r}) alone, choose another name, or delete it: "
                f"skyward down {name}",
            ) from None
        raise PoolError(f"pool {name} was refused: {error.message}", remedy=error.remedy) from None


def _chosen(session: Session, specs: Sequence[Spec], options: Options) -> Sequence[dict[str, Any]]:
    """The candidates that a `selection` function makes of the offers there are; none without a function."""
    if isinstance(options.selection, str):
        return ()
    candidates = candidate_objects(specs)
    asked = {"candidates": candidates, "selection": reading_order(options)}
    found = some(*read_offers(session.api, session.namespace, asked))
    return chosen_candidates(candidates, found, options.selection(found))


def _find(session: Session, name: str) -> None:
    """Raise for a pool that does not exist, or that has only the promise of another Python.

    Nodes count for what they have, which is known once they are watched; here is what waiting cannot mend.
    """
    pool = session.api.get(POOL, session.namespace, name)
    if pool is None:
        raise _not_found(session, name)
    python = pool["spec"].get("image", {}).get("python")
    if python and python != client_python():
        nodes, _ = session.api.list(NODE, session.namespace, labelSelector=f"{LABEL_POOL}={name}")
        if not any((node.get("status") or {}).get("agent") for node in nodes):
            check_python(python, f"pool {name}")


def _withdraw(session: Session, name: str, *, owned: bool) -> None:
    """Leave in the middle of the creation, without holding up whoever interrupted it."""
    left = False
    try:
        if owned:
            session.console.say(f"interrupted: deleting pool {name}; once more to leave at once")
            with session.api.hurried(HURRY_SECONDS):
                session.api.delete(POOL, session.namespace, name)
    except SkywardError as problem:
        _not_deleted(session, name, problem)
    except (KeyboardInterrupt, Terminated):
        left = True
        session.console.clear(f"left before pool {name} was deleted. Finish later: skyward down {name}")
        raise
    finally:
        sessions.release(session, at_once=left)


def _not_found(session: Session, name: str) -> PoolNotFound:
    pools, _ = session.api.list(POOL, session.namespace)
    names = ", ".join(sorted(pool["metadata"]["name"] for pool in pools)) or "none"
    return PoolNotFound(
        f"there is no pool {name} in namespace {session.namespace}; there are: {names}",
        remedy=f"create it: sky.Compute(name={name!r}, provider=sky.Local()), or kubectl apply -f pool.yaml",
    )


def _patience(session: Session, *, hurried: bool) -> AbstractContextManager[None]:
    """Whoever was interrupted waits less long for a control plane that does not answer."""
    return session.api.hurried(HURRY_SECONDS) if hurried else nullcontext()


def _ask_deletion(session: Session, view: PoolView) -> bool:
    try:
        session.api.delete(POOL, session.namespace, view.name)
    except SkywardError as error:
        _not_deleted(session, view.name, error)
        return False
    return True


def _prove_deletion(
    session: Session, view: PoolView, seconds: float, tally: Tally, *, hurried: bool, failed: bool
) -> None:
    console = session.console
    try:
        gone = view.wait_gone(seconds)
        with _patience(session, hurried=hurried):
            gone = gone and _is_absent(session, view.name)
    except SkywardError as error:
        _not_deleted(session, view.name, error)
        return
    cost = cost_words(view.cost)
    if gone:
        mark = ("✘" if failed else "✔") if tally.started else "released ·"
        console.clear(f"{mark} {_extent(view, tally)} · {cost} · nothing left running")
    else:
        left = ", ".join(sorted(view.nodes)) or view.name
        console.clear(
            f"⚠ {_extent(view, tally)} · {cost} · not confirmed gone after {seconds:.0f} s: {left}. "
            f"The operator goes on; check with: skyward down {view.name}"
        )


def _not_deleted(session: Session, name: str, error: SkywardError) -> None:
    session.console.clear(
        f"⚠ pool {name} could not be deleted: {error.message}. Finish later: skyward down {name}"
    )


def _is_absent(session: Session, name: str) -> bool:
    """Ask the API server itself: the watch may have missed what was made in the last moment."""
    nodes, _ = session.api.list(NODE, session.namespace, labelSelector=f"{LABEL_POOL}={name}")
    return not nodes and session.api.get(POOL, session.namespace, name) is None


def _extent(view: PoolView, tally: Tally) -> str:
    calls = f"{count(tally.calls, 'call')} · " if tally.started else ""
    return f"{calls}{count(view.most_nodes, 'node')} · {elapsed(time.monotonic() - tally.began)}"


_at_exit: list[Callable[[], None]] = []


def close_at_exit(close: Callable[[], None]) -> None:
    """Close a pool that is still open when the interpreter ends (a notebook, a missing `with`)."""
    if not _at_exit:
        atexit.register(_close_all)
    _at_exit.append(close)


def forget_at_exit(close: Callable[[], None]) -> None:
    """The pool was closed in time."""
    if close in _at_exit:
        _at_exit.remove(close)


def _close_all() -> None:
    for close in _at_exit:
        with suppress(SkywardError, KeyboardInterrupt):
            close()
