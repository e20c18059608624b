"""One run of a program: its connection, its ticket, and the one watch that brings the ends of all its Tasks.

Pools of one process in one namespace share a session. It knows nothing about pools but their names.
"""

import hashlib
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from skyward.cluster import tickets
from skyward.cluster.api import Api, ApiError
from skyward.cluster.connection import Connection, ReportedStep, connect, find_embedded, trouble_words
from skyward.cluster.cutter import Cutter
from skyward.cluster.download import download
from skyward.cluster.gateway import Gateway
from skyward.cluster.logs import LogFollower
from skyward.cluster.pulse import Pulse
from skyward.cluster.watch import Watch
from skyward.console import Console, Stream, Subject
from skyward.console.lines import LineAssembler, Source
from skyward.contract.names import LABEL_RUN, TASK
from skyward.errors import PoolDeleted, PoolStalled, SkywardError, TaskError
from skyward.functions import PendingFunction
from skyward.image import client_python
from skyward.leaving import Leaving
from skyward.manifest import Call, Owner, object_name, open_task_object, task_object
from skyward.packing import Packed, pack
from skyward.tasks import QUIET_SECONDS, TOLD_BYTES, TaskHandle
from skyward.wire.digest import BytesLike
from skyward.wire.options import CallOptions

PATIENCE_SECONDS = 300.0
"""How long a running program waits for a control plane that went away, while it says so."""
HURRY_SECONDS = 5.0
"""How long whoever was interrupted is held up by a control plane that does not answer, for each step."""
TROUBLE_SECONDS = 5.0
SLOW_SECONDS = 0.5
"""A connection that takes longer is worth a line."""
POOL_GRACE_SECONDS = 3.0
OUTPUT_SECONDS = 3.0
"""How long the end of a program waits for output that it missed: the operator was started again just now."""
_ENDED = 10_000
CONTROL_PLANE = Subject("control plane")
OPERATOR = Subject("operator")

_lock = threading.Lock()
_open: dict[str, "Session"] = {}


class Session:
    """Submits Tasks and resolves their handles. Use `acquire` and `release`."""

    def __init__(self, api: Api, namespace: str, console: Console) -> None:
        ticket = secrets.token_hex(32)
        self.api = api
        self.namespace = namespace
        self.console = console
        self.owner = Owner(secrets.token_hex(6), hashlib.sha256(ticket.encode()).hexdigest())
        self.gateway = Gateway(api, ticket)
        tickets.keep(ticket, self.owner.ticket_hash)
        self.executor = ThreadPoolExecutor(4, thread_name_prefix="skyward-result")
        self.leaving = Leaving()
        self.users = 0
        self._handles: dict[str, TaskHandle] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        """The latest Tasks that have ended: some of their output may still come."""
        self._lines = LineAssembler()
        self._logs = LogFollower(self.gateway, namespace, self.printed, console.say)
        self._pulse = Pulse(api, lambda: bool(self._handles), self.operator_silent)
        self._watch = Watch(
            api,
            TASK,
            namespace,
            on_object=self._on_task,
            on_gone=self._on_task_gone,
            on_trouble=self.trouble,
            selectors={"labelSelector": f"{LABEL_RUN}={self.owner.run}"},
        )

    def start(self) -> None:
        """Begin to watch. From here on an API server that goes away is waited for."""
        self._watch.start()
        self._pulse.start()
        self.api.patience = PATIENCE_SECONDS
        self.api.on_trouble = self.trouble

    def submit(
        self,
        pool: str,
        members: Sequence[PendingFunction[Any]],
        call: Call,
        count: int | None,
        options: Sequence[CallOptions] = (),
    ) -> TaskHandle:
        """Create the one Task of an operator expression. What cannot be sent raises before it exists."""
        packed = pack(members, options=options)
        return self.send(pool, members[0].name, packed, len(members), call, count)

    def send(
        self, pool: str, title: str, packed: Packed, calls: int, call: Call, count: int | None
    ) -> TaskHandle:
        """Create the Task of a package of `calls` calls, named after `title`; `count` results are awaited."""
        name = object_name(title, 8, limit=50)
        body = task_object(name, self.namespace, pool, client_python(), calls, packed, call, self.owner)
        handle = TaskHandle(name, pool, count, self.console, self._fetch, self._cancel, self._follow)
        self._handles[name] = handle
        try:
            self.api.create(TASK, body)
            handle.submitted()
            if "blob" in body["spec"]["calls"]:
                say = handle.uploading, handle.upload_waits, handle.upload_stored
                self.gateway.put_payload(self.namespace, name, packed.pieces, *say)
        except BaseException as error:
            self._withdraw(handle, error)
            if isinstance(error, ApiError):
                raise TaskError(f"the call was refused: {error.message}", remedy=error.remedy) from error
            raise
        self._logs.start()
        return handle

    def open_task(self, pool: str, name: str, call: Call) -> TaskHandle:
        """Create a Task whose calls come while it runs. Raises TaskError if the API server refuses it."""
        name = object_name(name, 8, limit=50)
        body = open_task_object(name, self.namespace, pool, client_python(), call, self.owner)
        handle = TaskHandle(name, pool, None, self.console, self._fetch, self._cancel, self._follow)
        self._handles[name] = handle
        try:
            self.api.create(TASK, body)
        except BaseException as error:
            self._withdraw(handle, error)
            if isinstance(error, ApiError):
                raise TaskError(f"the task was refused: {error.message}", remedy=error.remedy) from error
            raise
        self._logs.start()
        return handle

    def open_handles(self, pool: str) -> list[TaskHandle]:
        """The Tasks of a pool that have not ended."""
        return [each for each in list(self._handles.values()) if each.pool == pool and not each.is_finished]

    def pool_gone(self, pool: str) -> None:
        """The pool does not exist any more: whoever waits for it hears so, from the operator or from here."""

        def fail_the_rest() -> None:
            for handle in self.open_handles(pool):
                handle.fail(
                    PoolDeleted(
                        f"pool {pool} was deleted while task {handle.name} waited for it",
                        task=handle.name,
                        remedy="create the pool again and send the call once more",
                    )
                )

        timer = threading.Timer(POOL_GRACE_SECONDS, fail_the_rest)
        timer.daemon = True
        timer.start()

    def pool_stalled(self, pool: str, error: Callable[[], PoolStalled | None]) -> None:
        """The pool has no node and gets none before its spec changes: whoever waits hears why. The calls are
        cancelled: nobody waits for their results any more."""

        def fail_all() -> None:
            for handle in self.open_handles(pool):
                if (why := error()) is not None:
                    handle.fail(why)
                    self._cancel(handle.name)

        thread = threading.Thread(target=fail_all, name="skyward-stalled", daemon=True)
        thread.start()  # it asks the API server, and the watch goes on meanwhile

    def trouble(self, problem: str | None) -> None:
        """The API server does not answer (or does again, with None)."""
        if problem is not None:
            self.console.update(CONTROL_PLANE, trouble_words(self.api.connection), after=TROUBLE_SECONDS)
        else:
            shown = self.console.elapsed(CONTROL_PLANE) > TROUBLE_SECONDS
            self.console.done(CONTROL_PLANE, "answers again" if shown else "")

    def operator_silent(self, since: str | None) -> None:
        """The operator does not renew its lease (or does again, with None)."""
        if since is None:
            self.console.done(OPERATOR, "is heard of again")
            return
        where = (
            "skyward local status"
            if self.api.connection.is_embedded
            else "kubectl -n skyward-system get pods"
        )
        self.console.update(
            OPERATOR,
            f"has not been heard of since {since}: nothing begins or ends before it is back (see `{where}`)",
        )

    def printed(self, piece: dict[str, Any]) -> None:
        """One piece of output from a node, or that the last piece of a task has come.

        Only of Tasks that were created here: others may carry the hash of our ticket, which is no secret.
        """
        if not self._is_ours(piece):
            return
        if "done" in piece:
            self._print_rests(str(piece.get("task")))
            return
        handle = self._handles.get(str(piece.get("task")))
        if handle is not None:
            handle.on_output()
        stream: Stream = "stderr" if piece.get("stream") == "stderr" else "stdout"
        if "gap" in piece and "rank" not in piece:  # what comes next is not the rest of a line
            self._print_rests(str(piece.get("task")))
        prefix = f"[node {piece['rank']}]" if "rank" in piece else ""
        call = (piece.get("index"), piece.get("attempt"))
        source: Source = (piece.get("task"), call, prefix, stream)
        draws = self.console.draws(stream)
        if lines := self._lines.feed(source, str(piece.get("text", "")), draws=draws):
            self.console.remote_lines(prefix, lines, stream)
        if draws:
            self.console.progress(source, prefix, self._lines.state(source))

    def close(self, *, at_once: bool = False) -> None:
        """Stop watching. Tasks that have not ended go on without anybody who waits.

        Output that was missed is waited for, unless it is to end `at_once`.
        """
        self._watch.stop()
        self._pulse.stop()
        self.leaving.stop()
        seconds = 0.0 if at_once else OUTPUT_SECONDS
        with self.api.hurried(seconds):  # its lease says where the gateway is
            self._logs.finish(seconds)
        self._print_rests()
        self.gateway.close()
        self.api.close()
        self.executor.shutdown(wait=False)

    def _on_task(self, task: dict[str, Any]) -> None:
        handle = self._handles.get(task["metadata"]["name"])
        if handle is not None:
            handle.on_object(task)
            if handle.is_finished:
                self._forget(handle.name)

    def _is_ours(self, piece: dict[str, Any]) -> bool:
        name = str(piece.get("task"))
        return piece.get("namespace") == self.namespace and (name in self._handles or name in self._ended)

    def _forget(self, name: str) -> TaskHandle | None:
        """Nothing more is told to the handle of this Task."""
        self._ended[name] = None
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)
        return self._handles.pop(name, None)

    def _print_rests(self, task: str | None = None) -> None:
        """A last line without an end of line is shown when nothing more comes of its task."""
        for source in self._lines.sources():
            name, _, prefix, stream = source
            if task in (None, name) and (rest := self._lines.rest(source)):
                self.console.progress(source, prefix, "")
                self.console.remote(prefix, rest, stream)

    def _on_task_gone(self, task: dict[str, Any]) -> None:
        handle = self._forget(task["metadata"]["name"])
        if handle is not None:
            handle.on_gone()

    def _withdraw(self, handle: TaskHandle, error: BaseException) -> None:
        """Forget a Task whose submission failed half-way; one that may exist is cancelled."""
        self._forget(handle.name)
        handle.fail(error)
        if not isinstance(error, ApiError):
            self._cancel(handle.name)

    def _fetch(self, task: str, blob: Mapping[str, Any]) -> BytesLike:
        begin, subject, told = partial(self.gateway.result, self.namespace, task), Subject("task", task), 0

        def progress(received: int, size: int) -> None:
            nonlocal told
            if received - told >= TOLD_BYTES or received < told:
                told = received
                words = f"{received / 1e6:,.0f} of {size / 1e6:,.0f} MB of its result have come"
                self.console.update(subject, words, after=QUIET_SECONDS)

        try:
            return download(task, int(blob["sizeBytes"]), str(blob["digest"]), begin, progress)
        finally:
            self.console.done(subject)

    def _follow(self, task: str, start: int, cutter: Cutter) -> Iterator[bytes]:
        return self.gateway.follow_results(self.namespace, task, start, cutter)

    def _cancel(self, task: str) -> None:
        try:
            self.api.patch(TASK, self.namespace, task, {"spec": {"cancel": True}})
        except SkywardError as error:
            self.console.say(f"task {task} could not be cancelled: {error.message}")


def acquire(console: Console, namespace: str | None = None) -> Session:
    """The session of this process for `namespace`; connects, and shows the steps, if there is none yet."""
    key = f"{os.getpid()}/{namespace or ''}/{os.environ.get('KUBECONFIG', '')}"
    with _lock:
        session = _open.get(key)
        if session is None:
            session = _open[key] = _connected(console, namespace)
        session.users += 1
        return session


def release(session: Session, *, at_once: bool = False) -> None:
    """Give a session back; the last one out closes it, without waiting for output if `at_once`."""
    with _lock:
        session.users -= 1
        if session.users > 0:
            return
        for key in [key for key, each in _open.items() if each is session]:
            del _open[key]
    session.close(at_once=at_once)


def open_api(console: Console, *, start: bool = True) -> Api:
    """A checked connection. Without `start` an embedded control plane that does not run is an error."""
    connection = connect(_reporter(console), start=start)
    api = Api(connection, _renewal(connection))
    if not connection.is_embedded:  # that one was asked already
        words = f"waiting for {connection.server} ({connection.title})"
        console.update(CONTROL_PLANE, words, after=SLOW_SECONDS)
    try:
        api.check_schema()
    except BaseException:
        api.close()
        raise
    finally:
        console.done(CONTROL_PLANE)
    return api


def _connected(console: Console, namespace: str | None) -> Session:
    api = open_api(console)
    session = Session(api, namespace or api.connection.namespace, console)
    try:
        session.start()
    except BaseException:
        session.close()
        raise
    return session


def _renewal(connection: Connection) -> Callable[[], Connection | None] | None:
    return find_embedded if connection.is_embedded else None


def _reporter(console: Console) -> Callable[[ReportedStep], None]:
    def report(step: ReportedStep) -> None:
        console.update(CONTROL_PLANE, f"{step.name}: {step.detail}" if step.detail else step.name)

    return report
