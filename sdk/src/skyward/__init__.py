"""Ephemeral GPU compute that feels like a function call and is run like infrastructure.

`import skyward as sky` loads the standard library only: the names that a function needs on a VM at once,
everything else at its first use. `pending >> sky` sends to the pool of the enclosing `with`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# These two names are also modules here: bound first, before a submodule import could bind the module.
from skyward.gather import gather as gather  # isort: skip
from skyward.shard import shard as shard  # isort: skip
from skyward.functions import Function, PendingFunction, PendingFunctionGroup, Retry, compute, function
from skyward.runtime import InstanceInfo, current, instance_info, is_head

if TYPE_CHECKING:
    from skyward import accelerators as accelerators
    from skyward import errors as errors
    from skyward import time as time
    from skyward.computepool import (
        ComputePool,
        PendingBatch,
        PendingCompute,
        PendingComputeGroup,
        S3Volume,
        pool,
    )
    from skyward.errors import (
        ArgumentTooLarge,
        BootstrapFailed,
        BudgetExceeded,
        ConfigurationError,
        ControlPlaneError,
        EnvironmentMismatch,
        GatewayError,
        Indeterminate,
        NoControlPlane,
        NodeLost,
        NotPicklable,
        PayloadError,
        PoolDeleted,
        PoolError,
        PoolNotFound,
        PoolNotReady,
        PoolStalled,
        QueueTimeout,
        RemoteError,
        RemoteTraceback,
        ResultNotPicklable,
        ResultTooLarge,
        SchemaMismatch,
        SkywardError,
        TaskCancelled,
        TaskError,
        TaskTimeout,
        WorkerDied,
    )
    from skyward.executor import CallFuture, Executor
    from skyward.image import DEFAULT_IMAGE, Image, PipIndex
    from skyward.market import offers
    from skyward.multipool import MultiPool
    from skyward.offer import Offer
    from skyward.pools import Compute, Pool
    from skyward.providers import (
        AWS,
        GCP,
        DigitalOcean,
        Hyperstack,
        Local,
        Novita,
        Provider,
        RunPod,
        Scaleway,
        Sim,
        TensorDock,
        VastAI,
        Verda,
        Vultr,
    )
    from skyward.records import CallError, CallRecord
    from skyward.reference import TaskReference, task
    from skyward.spec import Accelerator, Budget, HealthChecker, Nodes, Options, Spec, Volume, Worker
    from skyward.tasks import TaskFuture

__version__ = "0.1.0"

_ERRORS = (
    "ArgumentTooLarge BootstrapFailed BudgetExceeded ConfigurationError ControlPlaneError "
    "EnvironmentMismatch GatewayError Indeterminate NoControlPlane NodeLost NotPicklable PayloadError "
    "PoolDeleted PoolError PoolNotFound PoolNotReady PoolStalled QueueTimeout RemoteError RemoteTraceback "
    "ResultNotPicklable ResultTooLarge SchemaMismatch SkywardError TaskCancelled TaskError TaskTimeout "
    "WorkerDied"
)
_PROVIDERS = (
    "AWS DigitalOcean GCP Hyperstack Local Novita Provider RunPod Scaleway Sim TensorDock VastAI Verda Vultr"
)
_LAZY = {
    **dict.fromkeys(_ERRORS.split(), "skyward.errors"),
    **dict.fromkeys(_PROVIDERS.split(), "skyward.providers"),
    **dict.fromkeys(("DEFAULT_IMAGE", "Image", "PipIndex"), "skyward.image"),
    **dict.fromkeys(("Compute", "Pool"), "skyward.pools"),
    "MultiPool": "skyward.multipool",
    **dict.fromkeys(("ComputePool", "S3Volume", "pool"), "skyward.computepool"),
    **dict.fromkeys(("PendingBatch", "PendingCompute", "PendingComputeGroup"), "skyward.computepool"),
    **dict.fromkeys(
        ("Accelerator", "Budget", "HealthChecker", "Nodes", "Options", "Spec", "Volume", "Worker"),
        "skyward.spec",
    ),
    "TaskFuture": "skyward.tasks",
    **dict.fromkeys(("task", "TaskReference"), "skyward.reference"),
    **dict.fromkeys(("CallError", "CallRecord"), "skyward.records"),
    **dict.fromkeys(("CallFuture", "Executor"), "skyward.executor"),
    "Offer": "skyward.offer",
    "offers": "skyward.market",
}
_MODULES = ("accelerators", "errors", "time")

__all__ = [
    "function",
    "compute",
    "gather",
    "shard",
    "instance_info",
    "is_head",
    "current",
    "Function",
    "PendingFunction",
    "PendingFunctionGroup",
    "Retry",
    "TaskFuture",
    "CallError",
    "CallRecord",
    "task",
    "TaskReference",
    "Executor",
    "CallFuture",
    "InstanceInfo",
    "Compute",
    "offers",
    "Offer",
    "Pool",
    "MultiPool",
    "ComputePool",
    "PendingCompute",
    "PendingComputeGroup",
    "PendingBatch",
    "pool",
    "S3Volume",
    "Spec",
    "Nodes",
    "Worker",
    "Options",
    "HealthChecker",
    "Volume",
    "Accelerator",
    "Image",
    "PipIndex",
    "DEFAULT_IMAGE",
    "Provider",
    "Local",
    "AWS",
    "DigitalOcean",
    "GCP",
    "Hyperstack",
    "Novita",
    "RunPod",
    "Scaleway",
    "Sim",
    "TensorDock",
    "VastAI",
    "Verda",
    "Vultr",
    "accelerators",
    "errors",
    "time",
    "SkywardError",
    "ConfigurationError",
    "ControlPlaneError",
    "NoControlPlane",
    "SchemaMismatch",
    "GatewayError",
    "PoolError",
    "PoolNotFound",
    "PoolNotReady",
    "PoolStalled",
    "BootstrapFailed",
    "Budget",
    "BudgetExceeded",
    "PoolDeleted",
    "TaskError",
    "NotPicklable",
    "ArgumentTooLarge",
    "EnvironmentMismatch",
    "PayloadError",
    "QueueTimeout",
    "TaskTimeout",
    "TaskCancelled",
    "WorkerDied",
    "NodeLost",
    "Indeterminate",
    "ResultNotPicklable",
    "ResultTooLarge",
    "RemoteError",
    "RemoteTraceback",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value: Any = getattr(import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = import_module(f"skyward.{name}")
    else:
        raise AttributeError(_unknown(name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, __all__, n=1)
    return f"module 'skyward' has no attribute {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
