"""The process that owns etcd, kube-apiserver and the operator.

It starts the three in order, starts a crashed one again, and ends them in the opposite order when it is told
to stop. What it does is in `status.json`; it listens on nothing, and takes no orders but signals.
"""

import logging
import os
import select
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import skyward
from skyward.contract.names import SCHEMA_VERSION
from skyward.local.api import Object
from skyward.local.bootstrap import bootstrap
from skyward.local.errors import LocalError, StartFailed
from skyward.local.home import COMPONENTS, Home
from skyward.local.operator import forget_endpoints, leftovers, read_endpoints, succession
from skyward.local.processes import Child, Identity, Spec, find_by_argument, rotate, stop_all, tail
from skyward.local.servers import PORT_TAKEN, Ports, Servers
from skyward.local.status import ComponentState, State, Status, read_status, write_status
from skyward.local.watched import Watched

log = logging.getLogger("skyward.local.supervisor")

_OPERATOR_START_SECONDS = 90.0
_OPERATOR_START_ATTEMPTS = 4
_IDLE_SECONDS = 5.0
_BUSY_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Definitions:
    """What the API server is given at each start."""

    kinds: Sequence[Object]
    operator_rules: Sequence[Object]


class Supervisor:
    """Everything that runs in one home."""

    def __init__(self, home: Home, binaries: tuple[Path, Path], operator: Sequence[str]) -> None:
        previous = read_status(home)
        self._home = home
        self._ended_cleanly = previous is not None and previous.state is State.STOPPED
        self._servers = Servers(home, *binaries, Ports.of(previous.ports) if previous else None)
        self._operator_command = operator
        self._etcd = Watched("etcd", self._servers.start_etcd, self._servers.is_ready)
        self._api_server = Watched("kube-apiserver", self._servers.start_api_server, self._servers.is_ready)
        self._operator = Watched("operator", self._begin_operator, self._operator_serves)
        self._watched = [self._etcd, self._api_server, *([self._operator] if operator else [])]
        self._stopping = False
        self._is_untold = False
        """The status on disk is an older one: it could not be written."""
        self._status = Status(
            state=State.STARTING,
            supervisor=Identity.of(os.getpid()) or Identity(os.getpid(), 0.0),
            skyward=skyward.__version__,
            schema=SCHEMA_VERSION,
            python=sys.executable,
            started=time.time(),
        )

    def stop_soon(self) -> None:
        """Ask for a graceful stop; safe in a signal handler."""
        self._stopping = True

    def run(self, wake: int) -> int:
        """Start everything, look after it, stop everything; answer the exit status.

        Args:
            wake: a file descriptor that becomes readable when a signal came: a child ended, or it is to stop.
        """
        try:
            self._start()
            self._look_after(wake)
        except Exception as error:
            if not self._stopping:
                log.exception("giving up")
                text = error.message if isinstance(error, LocalError) else f"{type(error).__name__}: {error}"
                return self._shut_down(State.FAILED, text)
        return self._shut_down(State.STOPPED)

    def _start(self) -> None:
        self._tell(step="starting etcd and kube-apiserver")
        if not self._ended_cleanly:
            self._end_leftovers()
        with ThreadPoolExecutor(1, thread_name_prefix="definitions") as pool:
            definitions = pool.submit(load_definitions)  # half a second of work while the servers start
            self._start_servers(definitions)
        if self._operator_command:
            self._tell(step="starting the operator")
            self._operator.start()
            self._wait_for_operator()
        self._tell(State.READY, step="ready")
        log.info("ready on %s after %.1f s", self._servers.server, self._status.seconds_up)

    def _start_servers(self, definitions: "Future[Definitions]") -> None:
        self._servers.start(cancelled=lambda: self._stopping)
        self._adopt_servers()
        self._servers.write_kubeconfigs()
        log.info("the API server answers after %.1f s", self._status.seconds_up)
        self._tell(step="applying the resource definitions")
        known = definitions.result()
        bootstrap(self._servers.api, known.kinds, known.operator_rules)
        log.info("the kinds are served after %.1f s", self._status.seconds_up)

    def _adopt_servers(self) -> None:
        pairs = ((self._etcd, self._servers.etcd), (self._api_server, self._servers.api_server))
        for watched, child in pairs:
            if child is not None:
                watched.adopt(child)
                watched.check_ready()

    def _wait_for_operator(self) -> None:
        deadline = time.monotonic() + _OPERATOR_START_SECONDS
        while self._operator.state is not ComponentState.RUNNING:
            now = time.monotonic()
            late = now > deadline or self._operator.restarts >= _OPERATOR_START_ATTEMPTS
            if late or self._stopping:
                file = self._home.log("operator")
                how = self._operator.last_exit or f"not ready after {_OPERATOR_START_SECONDS:.0f} s"
                raise StartFailed(f"the operator did not start: {how}", file, tail(file))
            self._attend(self._operator, now)
            time.sleep(_BUSY_SECONDS)

    def _look_after(self, wake: int) -> None:
        while not self._stopping:
            now = time.monotonic()
            for watched in self._watched:
                self._attend(watched, now)
            if self._is_untold:
                self._tell()
            for name in COMPONENTS:
                with suppress(OSError):  # of a disk that is full: there is room again some time
                    rotate(self._home.log(name))
            _sleep(wake, self._seconds_until_due(now))

    def _seconds_until_due(self, now: float) -> float:
        if any(one.state is ComponentState.STARTING for one in self._watched):
            return _BUSY_SECONDS
        due = [one.restart_at - now for one in self._watched if one.state is ComponentState.RESTARTING]
        return max(0.0, min(due, default=_IDLE_SECONDS))

    def _attend(self, watched: Watched, now: float) -> None:
        if watched.check_exit(now):
            log.error("%s ended: %s; starting it again", watched.name, watched.last_exit)
            self._tell()
        if watched.is_due(now):
            if watched is not self._operator and PORT_TAKEN in watched.last_words:
                self._move_to_other_ports()
            else:
                watched.start()
            self._tell()
        if watched.check_ready():
            log.info("%s serves", watched.name)
            self._tell()

    def _move_to_other_ports(self) -> None:
        log.warning("a port was taken by somebody else; moving to other ports")
        self._operator.stop()
        self._servers.stop()
        self._servers.choose_ports()
        self._servers.start(cancelled=lambda: self._stopping)
        self._servers.write_kubeconfigs()
        self._adopt_servers()
        if self._operator_command:
            self._operator.start()

    def _begin_operator(self) -> Child:
        forget_endpoints(self._home)
        command = [*self._operator_command, *succession(self._home)]
        return Child(Spec("operator", command, self._home.log("operator")))

    def _operator_serves(self) -> bool:
        endpoints = read_endpoints(self._home)
        if endpoints is not None:
            self._status = replace(self._status, gateway=endpoints.gateway, health=endpoints.health)
        return endpoints is not None

    def _end_leftovers(self) -> None:
        """End what a killed supervisor left, by arguments that no other process has."""
        for argument in leftovers(self._home):
            processes = find_by_argument(argument)
            for process in processes:
                log.warning("ending process %d, left from an earlier start", process.pid)
            stop_all(processes, grace_seconds=10.0)

    def _shut_down(self, state: State, error: str = "") -> int:
        if state is State.STOPPED:
            self._tell(State.STOPPING, step="stopping")
        for watched in reversed(self._watched):
            watched.stop()
        self._servers.stop()  # those that were never adopted
        forget_endpoints(self._home)
        self._status = replace(self._status, error=error)
        self._tell(state, step=state.value)
        log.info("%s", state.value)
        return 0 if state is State.STOPPED else 1

    def _tell(self, state: State | None = None, *, step: str | None = None) -> None:
        self._status = replace(
            self._status,
            state=state or self._status.state,
            step=step or self._status.step,
            server=self._servers.server,
            ports=self._servers.ports.numbers,
            components=tuple(one.describe() for one in self._watched),
        )
        try:
            write_status(self._home.status, self._status)
        except OSError as error:
            # A full disk is no reason to end what runs: it is said again until it can be written.
            if not self._is_untold:
                log.error("the status cannot be written: %s", error)
            self._is_untold = True
        else:
            self._is_untold = False


def load_definitions() -> Definitions:
    """Generate what the API server is given; imports pydantic, which is why it is done beside the start."""
    from skyward.contract.crd import crd_documents
    from skyward.contract.rbac import OPERATOR_RULES

    return Definitions(crd_documents(), OPERATOR_RULES)


def _sleep(wake: int, seconds: float) -> None:
    readable, _, _ = select.select([wake], [], [], seconds)
    if readable:
        os.read(wake, 4096)
