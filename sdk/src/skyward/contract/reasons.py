"""The closed vocabularies of status: phases, conditions, reasons, and what a person can do about each.

A reason is one word that means the same thing wherever it stands, so a word that two kinds share has one
remedy. Whatever is not moving carries one of these; adding a reason means adding its next step here.
"""

from __future__ import annotations

from enum import StrEnum

from skyward.contract.remedies import NEXT_STEP, next_step


class ConditionType(StrEnum):
    """Types of conditions, for all three kinds."""

    # pools
    READY = "Ready"
    PROVISIONING = "Provisioning"
    CREDENTIALS_VALID = "CredentialsValid"
    SUSPENDED = "Suspended"
    STALLED = "Stalled"
    UNSUPPORTED = "Unsupported"
    DELETING = "Deleting"
    BUDGET_EXCEEDED = "BudgetExceeded"
    DEAD_MAN_SWITCH = "DeadManSwitch"
    # nodes (and READY)
    LAUNCHED = "Launched"
    BOOTSTRAPPED = "Bootstrapped"
    INTERRUPTED = "Interrupted"
    DRAINED = "Drained"
    # tasks
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


POOL_CONDITIONS = (
    ConditionType.READY,
    ConditionType.PROVISIONING,
    ConditionType.CREDENTIALS_VALID,
    ConditionType.SUSPENDED,
    ConditionType.STALLED,
    ConditionType.UNSUPPORTED,
    ConditionType.DELETING,
    ConditionType.BUDGET_EXCEEDED,
    ConditionType.DEAD_MAN_SWITCH,
)
NODE_CONDITIONS = (
    ConditionType.LAUNCHED,
    ConditionType.BOOTSTRAPPED,
    ConditionType.READY,
    ConditionType.INTERRUPTED,
    ConditionType.DRAINED,
)
TASK_CONDITIONS = (
    ConditionType.SCHEDULED,
    ConditionType.RUNNING,
    ConditionType.SUCCEEDED,
    ConditionType.FAILED,
)


class PoolPhase(StrEnum):
    """Where a pool stands."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    READY = "Ready"
    DEGRADED = "Degraded"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"


class NodePhase(StrEnum):
    """Where one machine stands, in the order in which things happen."""

    PENDING = "Pending"
    LAUNCHING = "Launching"
    CONNECTING = "Connecting"
    BOOTSTRAPPING = "Bootstrapping"
    READY = "Ready"
    DRAINING = "Draining"
    TERMINATING = "Terminating"
    FAILED = "Failed"
    GONE = "Gone"


class TaskPhase(StrEnum):
    """Where a task stands."""

    QUEUED = "Queued"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SUSPENDED = "Suspended"

    @property
    def is_final(self) -> bool:
        """True when the task never moves again."""
        return self in (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.CANCELLED)


class PoolReason(StrEnum):
    """Why a pool is in its phase."""

    ACCEPTED = "Accepted"
    LAUNCHING = "Launching"
    CONNECTING = "Connecting"
    BOOTSTRAPPING = "Bootstrapping"
    ALL_NODES_READY = "AllNodesReady"
    NODES_OUTDATED = "NodesOutdated"
    FIELDS_IGNORED = "FieldsIgnored"
    MINIMUM_READY = "MinimumReady"
    NO_NODES_WANTED = "NoNodesWanted"
    SCALING_UP = "ScalingUp"
    SCALING_DOWN = "ScalingDown"
    AWAITING_TASKS = "AwaitingTasks"
    REPLACING_NODES = "ReplacingNodes"
    SUSPENDED = "Suspended"
    DRAINING = "Draining"
    DELETING = "Deleting"
    LEASE_EXPIRED = "LeaseExpired"
    LIFETIME_REACHED = "LifetimeReached"
    CREDENTIALS_ACCEPTED = "CredentialsAccepted"
    CREDENTIALS_NOT_FOUND = "CredentialsNotFound"
    INVALID_CREDENTIALS = "InvalidCredentials"
    PROVIDER_UNKNOWN = "ProviderUnknown"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"
    NO_MATCHING_OFFER = "NoMatchingOffer"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PRICE_CAP_EXCEEDED = "PriceCapExceeded"
    PRICE_UNKNOWN = "PriceUnknown"
    BUDGET_EXCEEDED = "BudgetExceeded"
    REQUEST_REJECTED = "RequestRejected"
    RATE_LIMITED = "RateLimited"
    PROVISION_TIMEOUT = "ProvisionTimeout"
    CONNECT_TIMEOUT = "ConnectTimeout"
    BOOTSTRAP_TIMEOUT = "BootstrapTimeout"
    BOOTSTRAP_FAILED = "BootstrapFailed"
    IMAGE_REJECTED = "ImageRejected"
    PACKAGE_NOT_FOUND = "PackageNotFound"
    PYTHON_NOT_FOUND = "PythonNotFound"
    NODES_UNHEALTHY = "NodesUnhealthy"
    FELL_BACK_TO_ON_DEMAND = "FellBackToOnDemand"
    INTERNAL_ERROR = "InternalError"
    WITHIN_BUDGET = "WithinBudget"
    BUDGET_WARNING = "BudgetWarning"
    AWAITING_BUDGET = "AwaitingBudget"
    BUDGET_UNREADABLE = "BudgetUnreadable"
    SWITCH_SET = "SwitchSet"
    SWITCH_OFF = "SwitchOff"
    POWER_OFF_BILLED = "PowerOffBilled"
    SSH_KEY_RESTORED = "SshKeyRestored"


class NodeReason(StrEnum):
    """Why a node is in its phase."""

    ACCEPTED = "Accepted"
    INTENT_RECORDED = "IntentRecorded"
    LAUNCHING = "Launching"
    LAUNCHED = "Launched"
    UNKNOWN_OUTCOME = "UnknownOutcome"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_MATCHING_OFFER = "NoMatchingOffer"
    PRICE_CAP_EXCEEDED = "PriceCapExceeded"
    PROVIDER_UNKNOWN = "ProviderUnknown"
    PROVIDER_UNAVAILABLE = "ProviderUnavailable"
    CREDENTIALS_NOT_FOUND = "CredentialsNotFound"
    INVALID_CREDENTIALS = "InvalidCredentials"
    REQUEST_REJECTED = "RequestRejected"
    RATE_LIMITED = "RateLimited"
    PROVISION_TIMEOUT = "ProvisionTimeout"
    CONNECTING = "Connecting"
    CONNECT_TIMEOUT = "ConnectTimeout"
    HOST_KEY_MISMATCH = "HostKeyMismatch"
    BOOTSTRAPPING = "Bootstrapping"
    BOOTSTRAPPED = "Bootstrapped"
    BOOTSTRAP_TIMEOUT = "BootstrapTimeout"
    BOOTSTRAP_FAILED = "BootstrapFailed"
    IMAGE_REJECTED = "ImageRejected"
    PACKAGE_NOT_FOUND = "PackageNotFound"
    PYTHON_NOT_FOUND = "PythonNotFound"
    AGENT_STARTING = "AgentStarting"
    AGENT_READY = "AgentReady"
    AGENT_MISMATCH = "AgentMismatch"
    RECONNECTING = "Reconnecting"
    HEARTBEAT_LOST = "HeartbeatLost"
    UNHEALTHY = "Unhealthy"
    INTERRUPTED = "Interrupted"
    NOT_INTERRUPTED = "NotInterrupted"
    MACHINE_LOST = "MachineLost"
    LIFETIME_REACHED = "LifetimeReached"
    SCALED_DOWN = "ScaledDown"
    POOL_DELETED = "PoolDeleted"
    NODE_DELETED = "NodeDeleted"
    DRAINING = "Draining"
    DRAINED = "Drained"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"
    FELL_BACK_TO_ON_DEMAND = "FellBackToOnDemand"
    INTERNAL_ERROR = "InternalError"
    PREEMPTED = "Preempted"
    PRICE_UNKNOWN = "PriceUnknown"
    BUDGET_EXCEEDED = "BudgetExceeded"
    AWAITING_BUDGET = "AwaitingBudget"
    BUDGET_UNREADABLE = "BudgetUnreadable"
    SWITCH_FAILED = "SwitchFailed"
    HOST_KEY_PINNED = "HostKeyPinned"


class TaskReason(StrEnum):
    """Why a task is in its phase, or what ended it."""

    QUEUED = "Queued"
    AWAITING_PAYLOAD = "AwaitingPayload"
    AWAITING_CALLS = "AwaitingCalls"
    AWAITING_CALLER = "AwaitingCaller"
    AWAITING_NODES = "AwaitingNodes"
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_SUSPENDED = "PoolSuspended"
    POOL_STALLED = "PoolStalled"
    SUSPENDED = "Suspended"
    SCHEDULED = "Scheduled"
    AWAITING_STORAGE = "AwaitingStorage"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    USER_EXCEPTION = "UserException"
    COMMAND_FAILED = "CommandFailed"
    COMMAND_NOT_FOUND = "CommandNotFound"
    NOT_DESERIALIZABLE = "NotDeserializable"
    NOT_PICKLABLE = "NotPicklable"
    RESULT_NOT_PICKLABLE = "ResultNotPicklable"
    RESULT_TOO_LARGE = "ResultTooLarge"
    RESULT_NOT_STORED = "ResultNotStored"
    ARGUMENTS_NOT_STORED = "ArgumentsNotStored"
    ENTRYPOINT_NOT_FOUND = "EntrypointNotFound"
    ENVIRONMENT_MISMATCH = "EnvironmentMismatch"
    PAYLOAD_INVALID = "PayloadInvalid"
    WORKER_DIED = "WorkerDied"
    NODE_LOST = "NodeLost"
    INDETERMINATE = "Indeterminate"
    QUEUE_TIMEOUT = "QueueTimeout"
    RUN_TIMEOUT = "RunTimeout"
    CANCELLED = "Cancelled"
    CALLER_GONE = "CallerGone"
    POOL_DELETED = "PoolDeleted"
    BUDGET_EXCEEDED = "BudgetExceeded"
    RANK_NOT_FOUND = "RankNotFound"
    INTERNAL_ERROR = "InternalError"


type Reason = PoolReason | NodeReason | TaskReason

__all__ = [
    "ConditionType",
    "PoolPhase",
    "NodePhase",
    "TaskPhase",
    "PoolReason",
    "NodeReason",
    "TaskReason",
    "Reason",
    "POOL_CONDITIONS",
    "NODE_CONDITIONS",
    "TASK_CONDITIONS",
    "NEXT_STEP",
    "next_step",
]
