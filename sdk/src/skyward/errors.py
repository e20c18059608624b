"""Every error of the SDK, by what the caller should do next.

SkywardError
├── ControlPlaneError          the API server or the operator cannot be used
│   ├── NoControlPlane         none was found and none could be started
│   ├── SchemaMismatch         its resources are missing or of another version
│   └── GatewayError           bulk bytes could not be exchanged with the operator
├── PoolError                  the pool cannot serve calls
│   ├── PoolNotFound           no pool of that name
│   ├── PoolNotReady           it is not usable (yet, or any more)
│   ├── PoolStalled            it will not become ready before its spec changes
│   │   ├── BootstrapFailed    the image could not be prepared on a node
│   │   └── BudgetExceeded     a budget is used up, or does not suffice for one machine
│   └── PoolDeleted            it was deleted while somebody waited for it
└── TaskError                  the call has no result
    ├── NotPicklable           the function or an argument cannot be sent
    ├── ArgumentTooLarge       the arguments are larger than the limit
    ├── EnvironmentMismatch    client and node cannot understand each other's pickles
    ├── PayloadError           the calls never reached the operator whole
    ├── QueueTimeout           no slot became free in the time given
    ├── TaskTimeout            the call ran longer than its timeout; remote work was stopped
    ├── TaskCancelled          somebody cancelled it
    ├── WorkerDied             the worker process ended during the call
    ├── NodeLost               the VM was lost during the call, and retries were used up
    ├── Indeterminate          it may or may not have run; it was not tried again
    ├── ResultNotPicklable     the function returned something that cannot be sent back
    ├── ResultTooLarge         the function returned more bytes than the operator takes
    └── RemoteError            the function raised something that cannot be rebuilt here

An exception that the user's own function raises arrives as its original type, with a `RemoteTraceback` as its
cause. This module travels to the VM: standard library only.
"""

from typing import Any


class SkywardError(Exception):
    """Base of all errors of this package.

    The text says what happened, to which object, and what to do next (`remedy`). `attempts` is how often the
    call that failed was begun: 0 where none was. Of an error about a whole task, all its calls count.
    """

    default_reason = "Error"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        task: str | None = None,
        node: str | None = None,
        remedy: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.task = task
        self.node = node
        self.remedy = remedy
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        told = (self.message, self.reason, self.task, self.node, self.remedy, self.attempts)
        return _rebuild, (type(self), *told)


def _rebuild(
    kind: type[SkywardError],
    message: str,
    reason: str | None,
    task: str | None,
    node: str | None,
    remedy: str | None,
    attempts: int = 0,
) -> SkywardError:
    return kind(message, reason=reason, task=task, node=node, remedy=remedy, attempts=attempts)


class ControlPlaneError(SkywardError):
    """The API server or the operator cannot be used.

    See `skyward local status`, or whether `kubectl get skp` works.
    """

    default_reason = "ControlPlane"


class NoControlPlane(ControlPlaneError):
    """No control plane was found and none could be started.

    Start one with `skyward local up`, or correct `KUBECONFIG`, as the message says.
    """

    default_reason = "NoControlPlane"


class SchemaMismatch(ControlPlaneError):
    """The cluster does not serve the resources of this version.

    Install the same version here and in the cluster: its CRDs are in `crds/`.
    """

    default_reason = "SchemaMismatch"


class GatewayError(ControlPlaneError):
    """The operator's gateway refused or could not be reached.

    See whether the operator runs: `skyward local status`, or its pod's log.
    """

    default_reason = "GatewayUnavailable"


class ConfigurationError(SkywardError):
    """A configuration file or variable says what cannot be.

    The message begins with the file and the line. `skyward config validate` looks through all of it.
    """

    default_reason = "Configuration"


class PoolError(SkywardError):
    """The pool cannot serve calls.

    Do what the message says; `kubectl describe skp NAME` has more.
    """

    default_reason = "Pool"


class PoolNotFound(PoolError):
    """No pool of that name exists in the namespace.

    Create the pool, or use one of those that the message names.
    """

    default_reason = "PoolNotFound"


class PoolNotReady(PoolError):
    """The pool is not usable: not entered, or not ready in the time given.

    Send calls between `with sky.Compute(...) as pool:` and its end.
    """

    default_reason = "PoolNotReady"


class PoolStalled(PoolError):
    """The pool will not become ready before its spec changes.

    Correct what the message names, and create the pool again.
    """

    default_reason = "PoolStalled"


class BootstrapFailed(PoolStalled):
    """The image could not be prepared on a node; the line that failed is in the message.

    Correct `sky.Image(...)` as the log in the message says.
    """

    default_reason = "BootstrapFailed"


class BudgetExceeded(PoolStalled):
    """A budget is used up, or does not suffice for one machine; the message has the figures.

    Raise it (`kubectl patch skp NAME`, or the annotation of the namespace): the pool and its tasks go on.
    """

    default_reason = "BudgetExceeded"


class PoolDeleted(PoolError):
    """The pool was deleted while somebody waited for it.

    Create the pool again and send the call once more.
    """

    default_reason = "PoolDeleted"


class TaskError(SkywardError):
    """The call has no result.

    Do what the message says; `kubectl describe skt NAME` has more.
    """

    default_reason = "TaskFailed"


class NotPicklable(TaskError):
    """The function or an argument cannot be sent; the message names the part.

    Create that part inside the function, or pass what it is made from.
    """

    default_reason = "NotPicklable"


class ArgumentTooLarge(TaskError):
    """The pickled arguments are larger than the limit.

    Put the data into a volume or object store and pass its place, or raise the limit,
    `SKYWARD_LARGEST_PAYLOAD`.
    """

    default_reason = "ArgumentTooLarge"


class EnvironmentMismatch(TaskError):
    """Client and node run different Python minors, or a module is missing on the node.

    Give the pool this program's Python (`sky.Image(python=...)`), and the missing package (`pip=[...]`).
    """

    default_reason = "EnvironmentMismatch"


class PayloadError(TaskError):
    """The calls did not reach the operator whole.

    Send the call again; if it happens again, install the same version of skyward here and there.
    """

    default_reason = "PayloadInvalid"


class QueueTimeout(TaskError, TimeoutError):
    """No slot became free in the time given.

    Raise `with_queue_timeout(...)`, or give the pool more nodes.
    """

    default_reason = "QueueTimeout"


class TaskTimeout(TaskError, TimeoutError):
    """The call ran longer than its timeout; the remote work was stopped.

    Raise `with_timeout(...)`, or make the call shorter.
    """

    default_reason = "RunTimeout"


class TaskCancelled(TaskError):
    """The task was cancelled.

    Send the call again if its result is still wanted.
    """

    default_reason = "Cancelled"


class WorkerDied(TaskError):
    """The worker process ended during the call.

    The message says how; if memory ran out, take a bigger machine or less data.
    """

    default_reason = "WorkerDied"


class NodeLost(TaskError):
    """The VM was lost during the call and the retries were used up.

    Raise `with_retry(on_interruption=...)`, or use on-demand machines.
    """

    default_reason = "NodeLost"


class Indeterminate(TaskError):
    """The call may or may not have run; it was not tried again.

    Check what the call may have done, then send it again if wanted; `with_retry(on_interruption=...)`
    repeats it by itself.
    """

    default_reason = "Indeterminate"


class ResultNotPicklable(TaskError):
    """The function returned something that cannot be sent back.

    Return plain data: arrays, numbers, text.
    """

    default_reason = "ResultNotPicklable"


class ResultTooLarge(TaskError):
    """The function returned more bytes than the operator takes; none of them was sent.

    Write the result to a volume or object store and return its place, or raise the operator's limit,
    `SKYWARD_LARGEST_RESULT`.
    """

    default_reason = "ResultTooLarge"


class RemoteError(TaskError):
    """The function raised an exception that cannot be rebuilt here; its type is in the message.

    Catch `sky.RemoteError`, or install here the package that defines the exception.
    """

    default_reason = "UserException"


class RemoteTraceback(Exception):
    """The traceback as it was on the node; the cause of a re-raised remote exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"
