"""Start the control plane or join the one that runs, find it, and stop it.

Any number of clients may do so at once: whoever holds the lock acts, the others join what it made. Nothing
here keeps state; the truth is the supervisor's status file, checked against the process table and the server.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import skyward
from skyward.contract.names import KINDS
from skyward.local.api import Api, ApiError, ApiUnavailable
from skyward.local.binaries import Binaries, ensure_binaries
from skyward.local.bootstrap import bootstrap
from skyward.local.endpoint import Endpoint
from skyward.local.errors import NewerControlPlane, StartFailed
from skyward.local.home import Home
from skyward.local.locks import only_one
from skyward.local.operator import leftovers, operator_command
from skyward.local.processes import Identity, find_by_argument, stop_all, tail
from skyward.local.progress import Report, silent, working
from skyward.local.status import ComponentState, State, Status, read_status
from skyward.local.tokens import read_tokens
from skyward.local.versions import Verdict, judge

START_SECONDS = 240.0
"""More than all the limits inside the supervisor together: it knows better what went wrong."""
STOP_SECONDS = 45.0
_POLL_SECONDS = 0.03
_WAITING = "waiting for another process that starts or stops the control plane"


def ensure(
    report: Report = silent, *, operator: Callable[[Home], Sequence[str]] | None = operator_command
) -> Endpoint:
    """Answer a control plane that serves the kinds and whose operator is ready; start it if need be.

    Args:
        report: told what happens, whenever it takes longer than a moment.
        operator: makes the operator's command for a home; None runs none.

    Raises:
        LocalError: with what happened and what to do (see `skyward.local.errors`).
    """
    home = Home.locate()
    endpoint = _join(home)
    if endpoint is None or not _serves_kinds(endpoint):
        home.prepare()
        with only_one(home.start_lock, report, _WAITING):
            endpoint = _join(home) or _start(home, report, operator)
            if not _serves_kinds(endpoint):
                _apply_kinds(home, endpoint, report)
    return endpoint


def find() -> Endpoint | None:
    """Answer the control plane that runs and serves, of whatever version; start nothing."""
    home = Home.locate()
    status = read_status(home)
    return _endpoint(home, status) if status and status.is_alive else None


def stop(home: Home, report: Report = silent) -> bool:
    """Stop what runs in `home`, in order; the data stay. True when something ran."""
    with only_one(home.start_lock, report, _WAITING):
        status = read_status(home)
        ran = status is not None and status.is_alive
        if status is not None:
            _stop(home, status, report)
        return ran


def _join(home: Home) -> Endpoint | None:
    status = read_status(home)
    if status is None or status.state is not State.READY or not status.is_alive:
        return None
    if judge(status) is not Verdict.SHARE or not status.all_running:
        return None
    return _endpoint(home, status)


def _endpoint(home: Home, status: Status) -> Endpoint | None:
    tokens = read_tokens(home.pki)
    authority = home.pki / "ca.crt"
    if tokens is None or not status.server or not authority.exists():
        return None
    with Api(status.server, authority, tokens.admin) as api:
        if not api.is_ready():
            return None
    return Endpoint(status.server, authority, tokens.admin, home.kubeconfig)


def _connect(endpoint: Endpoint) -> Api:
    return Api(endpoint.server, endpoint.ca_file, endpoint.token)


def _serves_kinds(endpoint: Endpoint) -> bool:
    with _connect(endpoint) as api:
        return all(api.get(f"/apis/{kind.api_version}/{kind.plural}?limit=1") is not None for kind in KINDS)


def _apply_kinds(home: Home, endpoint: Endpoint, report: Report) -> None:
    """Somebody deleted a definition: the objects are gone with it, the control plane need not be."""
    from skyward.contract.crd import crd_documents  # pydantic, which the usual start has no need of
    from skyward.contract.rbac import OPERATOR_RULES

    try:
        with working(report, "applying the resource definitions again"):
            bootstrap(partial(_connect, endpoint), crd_documents(), OPERATOR_RULES)
    except (ApiError, ApiUnavailable, TimeoutError) as error:
        log = home.log("kube-apiserver")
        raise StartFailed(f"the resource definitions are not served: {error}", log, tail(log)) from None


def _start(home: Home, report: Report, operator: Callable[[Home], Sequence[str]] | None) -> Endpoint:
    status = read_status(home)
    if status is not None and status.is_alive:
        match judge(status):
            case Verdict.NEWER:
                raise NewerControlPlane(status.skyward, skyward.__version__)
            case Verdict.SHARE if status.state in (State.STARTING, State.READY):
                return _await(home, status.supervisor, report)
            case _:
                _stop(home, status, report)
    binaries = ensure_binaries(report)
    supervisor = _launch(home, binaries, operator(home) if operator else ())
    return _await(home, supervisor, report)


def _launch(home: Home, binaries: Binaries, operator: Sequence[str]) -> Identity:
    command = [
        *(sys.executable, "-m", "skyward.local.daemon"),
        *("--home", str(home.root)),
        *("--etcd", str(binaries.etcd), "--kube-apiserver", str(binaries.kube_apiserver)),
        *("--operator", json.dumps(list(operator))),
    ]
    # it forks and ends at once: the supervisor is nobody's child, and no zombie when it ends
    launcher = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=home.root)
    if launcher.returncode != 0:
        raise StartFailed("the supervisor could not be started", home.log("supervisor"), launcher.stderr)
    pid = int(launcher.stdout)
    return Identity.of(pid) or Identity(pid, 0.0)


def _await(home: Home, supervisor: Identity, report: Report) -> Endpoint:
    """Wait until the supervisor says that everything is ready, and the server answers."""
    deadline = time.monotonic() + START_SECONDS
    with working(report, "starting the control plane") as progress:
        while time.monotonic() < deadline:
            alive = supervisor.process() is not None
            status = read_status(home)
            mine = status if status is not None and status.supervisor.pid == supervisor.pid else None
            if mine is not None and mine.state is State.READY and mine.all_running:
                endpoint = _endpoint(home, mine)
                if endpoint is not None:
                    return endpoint
            if not alive:
                raise _died(home, mine)
            step = _step(mine)
            progress.say(step, now=step != progress.detail)
            time.sleep(_POLL_SECONDS)
    log = home.log("supervisor")
    raise StartFailed(f"the control plane was not ready after {START_SECONDS:.0f} s", log, tail(log))


def _step(status: Status | None) -> str:
    if status is None:
        return ""
    ended = [
        f"{one.name} ended ({one.last_exit}), trying again" for one in status.components if one.last_exit
    ]
    waiting = [one.name for one in status.components if one.state is not ComponentState.RUNNING]
    if status.state is State.READY:
        return f"waiting for {', '.join(waiting)}" if waiting else ""
    return f"{status.step}: {', '.join(ended)}" if ended else status.step


def _died(home: Home, status: Status | None) -> StartFailed:
    log = home.log("supervisor")
    if status is not None and status.error:
        return StartFailed(f"the control plane did not start: {status.error}", log, "")
    return StartFailed("the supervisor ended unexpectedly", log, tail(log))


def _stop(home: Home, status: Status, report: Report) -> None:
    process = status.supervisor.process()
    if process is not None:
        with working(report, "stopping the control plane"):
            stop_all([process], grace_seconds=STOP_SECONDS)
    if status.state is not State.STOPPED:  # killed, now or earlier: what it owned may still run
        for argument in leftovers(home):
            stop_all(find_by_argument(argument), grace_seconds=10.0)
