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
│   │   └── BootstrapFailed    the image could not be prepared on a node
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
    └── RemoteError            the function raised something that cannot be rebuilt here

An exception that the user's own function raises arrives as its original type, with a `RemoteTraceback` as its
cause. This module travels to the VM: standard library only.
"""

from typing import Any


class SkywardError(Exception):
    """Base of all errors of this package.

    The text says what happened, to which object, and what to do next (`remedy`).
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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.task = task
        self.node = node
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.reason, self.task, self.node, self.remedy)


def _rebuild(
    kind: type[SkywardError],
    message: str,
    reason: str | None,
    task: str | None,
    node: str | None,
    remedy: str | None,
) -> SkywardError:
    return kind(message, reason=reason, task=task, node=node, remedy=remedy)


class ControlPlaneError(SkywardError):
    """The API server or the operator cannot be used."""

    default_reason = "ControlPlane"


class NoControlPlane(ControlPlaneError):
    """No control plane was found and none could be started."""

    default_reason = "NoControlPlane"


class SchemaMismatch(ControlPlaneError):
    """The cluster does not serve the resources of this version."""

    default_reason = "SchemaMismatch"


class GatewayError(ControlPlaneError):
    """The operator's gateway refused or could not be reached."""

    default_reason = "GatewayUnavailable"


class PoolError(SkywardError):
    """The pool cannot serve calls."""

    default_reason = "Pool"


class PoolNotFound(PoolError):
    """No pool of that name exists in the namespace."""

    default_reason = "PoolNotFound"


class PoolNotReady(PoolError):
    """The pool is not usable: not entered, or not ready in the time given."""

    default_reason = "PoolNotReady"


class PoolStalled(PoolError):
    """The pool will not become ready before its spec changes."""

    default_reason = "PoolStalled"


class BootstrapFailed(PoolStalled):
    """The image could not be prepared on a node; the line that failed is in the message."""

    default_reason = "BootstrapFailed"


class PoolDeleted(PoolError):
    """The pool was deleted while somebody waited for it."""

    default_reason = "PoolDeleted"


class TaskError(SkywardError):
    """The call has no result."""

    default_reason = "TaskFailed"


class NotPicklable(TaskError):
    """The function or an argument cannot be sent; the message names the part."""

    default_reason = "NotPicklable"


class ArgumentTooLarge(TaskError):
    """The pickled arguments are larger than the limit."""

    default_reason = "ArgumentTooLarge"


class EnvironmentMismatch(TaskError):
    """Client and node run different Python minors, or a module is missing on the node."""

    default_reason = "EnvironmentMismatch"


class PayloadError(TaskError):
    """The calls did not reach the operator whole."""

    default_reason = "PayloadInvalid"


class QueueTimeout(TaskError, TimeoutError):
    """No slot became free in the time given."""

    default_reason = "QueueTimeout"


class TaskTimeout(TaskError, TimeoutError):
    """The call ran longer than its timeout; the remote work was stopped."""

    default_reason = "RunTimeout"


class TaskCancelled(TaskError):
    """The task was cancelled."""

    default_reason = "Cancelled"


class WorkerDied(TaskError):
    """The worker process ended during the call."""

    default_reason = "WorkerDied"


class NodeLost(TaskError):
    """The VM was lost during the call and the retries were used up."""

    default_reason = "NodeLost"


class Indeterminate(TaskError):
    """The call may or may not have run; it was not tried again."""

    default_reason = "Indeterminate"


class ResultNotPicklable(TaskError):
    """The function returned something that cannot be sent back."""

    default_reason = "ResultNotPicklable"


class RemoteError(TaskError):
    """The function raised an exception that cannot be rebuilt here; its type is in the message."""

    default_reason = "UserException"


class RemoteTraceback(Exception):
    """The traceback as it was on the node; the cause of a re-raised remote exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"
