"""What a person can do about each reason, in one sentence.

Kept apart from the vocabularies because it is prose: every word of the three of them has an entry here, and a
test compares. The key is the reason's value, so a word that two kinds share has one remedy.
"""

from __future__ import annotations

NEXT_STEP: dict[str, str] = {
    # seen, moving, well
    "Accepted": "Nothing to do: the operator has seen the object and starts with it.",
    "IntentRecorded": "Nothing to do: the request is recorded and goes to the provider now.",
    "Launching": "Nothing to do: machines are being started; kubectl get skn shows each one.",
    "Launched": "Nothing to do: the provider has made the machine.",
    "Connecting": "Nothing to do: the machine is starting its SSH server.",
    "Bootstrapping": (
        "Nothing to do: the Python environment is being installed; the first node of an image takes longest."
    ),
    "Bootstrapped": "Nothing to do: the environment is installed.",
    "AgentStarting": "Nothing to do: the agent is starting its workers.",
    "AgentReady": "Nothing to do: the node takes calls.",
    "AllNodesReady": "Nothing to do: every wanted node takes calls.",
    "NodesOutdated": (
        "Delete those nodes to have them replaced (kubectl delete skn NAME); until then they stay as "
        "they are."
    ),
    "FieldsIgnored": "Remove those fields, or do without what they ask for: docs/known-gaps.md has more.",
    "MinimumReady": "Nothing to do: the pool takes calls while the other nodes are being made.",
    "NoNodesWanted": "Set spec.nodes.desired above 0, or spec.nodes.max so that queued tasks start nodes.",
    "ScalingUp": "Nothing to do: queued calls have asked for more nodes.",
    "ScalingDown": "Nothing to do: idle nodes are being released.",
    "AwaitingTasks": "Nothing to do: nodes start when a task is queued.",
    "ReplacingNodes": "Nothing to do: lost nodes are being replaced and their calls are retried.",
    "CredentialsAccepted": "Nothing to do: the provider accepts the credentials.",
    "NotInterrupted": "Nothing to do: the provider has not announced an interruption.",
    "Queued": (
        "Nothing to do: the task waits for a free slot; raise spec.nodes.max or worker.concurrency for more."
    ),
    "Scheduled": "Nothing to do: a node has been chosen.",
    "Running": "Nothing to do: calls are running.",
    "Retrying": "Nothing to do: an attempt was lost and another one is under way.",
    "Succeeded": "Fetch the result; it is kept as long as the task.",
    # on purpose
    "Suspended": "Set spec.suspend to false to go on.",
    "PoolSuspended": "Set spec.suspend of the pool to false, or send the task to another pool.",
    "Draining": "Nothing to do: running calls finish first, within their grace period.",
    "Drained": "Nothing to do: no call is left on the node.",
    "Terminating": "Nothing to do: the object goes when the provider confirms that the machine is gone.",
    "Terminated": "Nothing to do: the machine is gone and no longer billed.",
    "Deleting": "Nothing to do: the pool goes when the provider confirms that its last machine is gone.",
    "ScaledDown": "Nothing to do: the pool wanted fewer nodes.",
    "NodeDeleted": "Nothing to do: the pool makes a new node if it still wants one.",
    "Cancelled": "Create the task again if its result is still wanted.",
    "LeaseExpired": (
        "The program that made the pool is gone; start it again, or leave out spec.lease for pools that stay."
    ),
    "LifetimeReached": (
        "Raise spec.lifetime.maxLifetimeSeconds or set it to 0, and split work that takes longer."
    ),
    # provider and money
    "CredentialsNotFound": "Create the Secret that credentialsRef names, in the namespace of the pool.",
    "InvalidCredentials": (
        "Put valid credentials into the Secret that credentialsRef names; the operator notices the change."
    ),
    "ProviderUnknown": (
        "Choose a provider that is named, or install the adapter where the operator runs (a package with an "
        "entry point in skyward.providers) and start it again; its --providers may also hide one."
    ),
    "ProviderUnavailable": (
        "The provider's API does not answer; the operator keeps trying. Add a candidate at another provider."
    ),
    "NoMatchingOffer": (
        "Ask for less (accelerator, memory, region, instance type) or add a candidate at another provider."
    ),
    "InsufficientCapacity": (
        "The provider has no such machine now; the operator keeps trying. Add regions, instance types or "
        "candidates."
    ),
    "QuotaExceeded": "Ask the provider for a higher quota, or add a candidate in another region or account.",
    "PriceCapExceeded": "Raise maxHourlyPrice of the candidate, or allow cheaper hardware or market: spot.",
    "FellBackToOnDemand": (
        "Nothing to do: spot could not be had and on-demand was bought; later nodes try spot again. Choose "
        "market: spot to wait for it instead."
    ),
    "PriceUnknown": (
        "The provider gives no price: set spec.budget.unknownPrice to Allow, or remove the budget."
    ),
    "BudgetExceeded": (
        "Raise the budget and the pool goes on by itself: spec.budget.maxTotal of the pool or task, or the "
        "annotation skyward.dev/budget-max-total of the namespace."
    ),
    "WithinBudget": "Nothing to do: there is money left, or no budget.",
    "BudgetWarning": "Raise the budget before it is used up, or let machines go that are not needed.",
    "AwaitingBudget": (
        "Nothing to do: the machine is bought once others have ended for less than was reserved for them; "
        "raise the budget to have it at once."
    ),
    "BudgetUnreadable": (
        "Correct the annotations skyward.dev/budget-… of the namespace (docs/money.md), and let the "
        "operator's role get namespaces."
    ),
    "RequestRejected": (
        "The provider refused the request as wrong; correct the candidate as the message says."
    ),
    "RateLimited": "Nothing to do: the provider asks for slower requests and the operator waits.",
    "UnknownOutcome": (
        "Nothing to do: the provider did not answer; the operator looks for the machine before it asks again."
    ),
    # making a node
    "ProvisionTimeout": "Raise spec.timeouts.provisionSeconds, or choose another region or provider.",
    "ConnectTimeout": (
        "Check that the operator reaches the machine on its SSH port, or raise spec.timeouts.sshSeconds."
    ),
    "AgentMismatch": (
        "See the node's log (skyward logs NODE) for what keeps the old agent there, and delete the node: its "
        "replacement begins with the operator's own agent."
    ),
    "HostKeyMismatch": (
        "The machine shows another host key than the one pinned; delete the node unless you know why."
    ),
    "BootstrapTimeout": "Raise spec.timeouts.bootstrapSeconds, or install fewer packages.",
    "BootstrapFailed": (
        "Correct the image (spec.image; sky.Image in Python) as the log says; it is in the pool's "
        "status.failures.log."
    ),
    "ImageRejected": "Correct spec.image as the message says; the pool then starts again by itself.",
    "PackageNotFound": (
        "Correct the package in spec.image.pip or .apt (Image(pip=[...]) in Python), or add the index that "
        "has it to spec.image.indexes (Image(pip_indexes=[...]))."
    ),
    "PythonNotFound": "Choose a released Python version in spec.image.python, such as 3.13.",
    # running nodes
    "Reconnecting": "Nothing to do: the connection broke and is being made again; calls go on meanwhile.",
    "HeartbeatLost": (
        "Nothing to do: the machine no longer answers and is replaced; its calls are retried as spec.retry "
        "allows."
    ),
    "Unhealthy": (
        "Nothing to do: the node is bad, as the message says, and is replaced once its calls have ended or "
        "had their time."
    ),
    "NodesUnhealthy": (
        "Nodes are bad, as the message says, and others in their place would be as well: find the cause, or "
        "correct spec.health; a bad node that is deleted is replaced."
    ),
    "Interrupted": (
        "Nothing to do: the provider takes the machine back; its calls have until then, and another one is "
        "made at once. Choose market: on-demand to avoid it."
    ),
    "Preempted": (
        "Nothing to do: the provider took the machine back without notice and it is replaced; choose market: "
        "on-demand to avoid it."
    ),
    "MachineLost": (
        "Nothing to do: the machine is gone without notice and is replaced; its calls are retried as "
        "spec.retry allows."
    ),
    # without an operator
    "SwitchSet": "Nothing to do: a machine that hears nothing from the operator ends by itself.",
    "SwitchOff": (
        "Set spec.lifetime.ttlSeconds above 0, or see to it that an operator comes back: nothing else ends "
        "them."
    ),
    "PowerOffBilled": (
        "Keep the operator running: its sweep ends machines that no node owns, and one that comes back ends "
        "those of nodes that are gone; otherwise end them in the provider's console."
    ),
    "SwitchFailed": (
        "Use an image whose user may become root with sudo, or set spec.lifetime.ttlSeconds to 0 and accept "
        "that machines go on without an operator."
    ),
    "SshKeyRestored": (
        "Nothing to do; leave Secrets with the label skyward.dev/pool alone: they go with their pool."
    ),
    "HostKeyPinned": (
        "Nothing to do; compare the fingerprint with the one in the provider's console to be sure."
    ),
    # tasks that wait or ended badly
    "AwaitingPayload": (
        "The creator has to upload the payload; if its program ended before that, delete the task."
    ),
    "AwaitingStorage": (
        "Free space on the operator's disk, or have its object store answer: the result waits for that, and "
        "comes by itself then. Deleting the task gives its results up."
    ),
    "AwaitingCalls": "Nothing to do: the task is open and runs calls as they come; its client closes it.",
    "AwaitingCaller": (
        "The client that sends the calls is not connected: it comes back within 60 seconds, or the task is "
        "cancelled."
    ),
    "CallerGone": (
        "Nothing more runs: the program that sent the calls ended or lost its connection; start it again."
    ),
    "AwaitingNodes": "Wait for the pool's nodes; kubectl describe skp says what they are waiting for.",
    "PoolNotFound": (
        "Create the pool that spec.poolRef names, in the namespace of the task, or delete the task."
    ),
    "PoolStalled": "Correct the pool first: its status says what is wrong.",
    "PoolDeleted": "Create the pool again and send the task once more.",
    "UserException": "The function raised the error that is shown; correct it and send the task again.",
    "CommandFailed": "The command ended with an error; its log says why.",
    "CommandNotFound": (
        "Check spec.command.argv and spec.command.workingDirectory; programs come with spec.image.apt or "
        "spec.image.pip."
    ),
    "NotDeserializable": (
        "The node could not load the function or its arguments: install the missing package with "
        "spec.image.pip."
    ),
    "NotPicklable": (
        "Pass plain data (arrays, numbers, text, paths) and open files, locks and connections inside the "
        "function."
    ),
    "ResultNotPicklable": (
        "Return something that pickle can carry, such as arrays, numbers or text, instead of open resources."
    ),
    "ResultTooLarge": (
        "Write the result to a volume or object store and return its place, or raise --largest-result of the "
        "operator (SKYWARD_LARGEST_RESULT)."
    ),
    "ArgumentsNotStored": (
        "Free space on the node's disk, or give the pool machines with a larger one, and send the call "
        "again; or put the data on a volume or into an object store and pass its place."
    ),
    "ResultNotStored": (
        "Free space on the node's disk, or give the pool machines with a larger one, and send the call "
        "again; or write the result to a volume or object store and return its place."
    ),
    "EntrypointNotFound": (
        "Check module and name of spec.function.entrypoint, and that its package is in spec.image.pip."
    ),
    "EnvironmentMismatch": (
        "Give the pool the Python version of the client (spec.image.python), or run the client with the "
        "pool's; nodes that were ready before keep theirs until they are deleted (kubectl delete skn NAME)."
    ),
    "PayloadInvalid": (
        "The bytes of its calls are damaged, or gone from the disk where they lay: send the call again. If "
        "that does not help, look after that disk, and install the same version of skyward here and there."
    ),
    "WorkerDied": (
        "The process of the call ended; the message says how. If memory ran out, take a bigger machine or "
        "less data."
    ),
    "NodeLost": (
        "Send the call again. One that yields or pulls items is not tried again by itself once some were "
        "delivered; others are, as often as spec.retry.onInterruption (with_retry in Python) says: raise it, "
        "or use market: on-demand."
    ),
    "Indeterminate": (
        "The call may or may not have run to its end; check its effects, then send it again if wanted."
    ),
    "QueueTimeout": (
        "Raise spec.timeouts.queueSeconds (with_queue_timeout in Python), or give the pool more nodes."
    ),
    "RunTimeout": (
        "Raise spec.timeouts.runSeconds (with_timeout in Python), or make the call shorter; it was "
        "stopped on the node."
    ),
    "RankNotFound": "Choose a spec.target.rank below the number of nodes of the pool.",
    "InternalError": "This is a fault of the operator: its log has the details; please report it.",
}
"""What a person can do about each reason, in one sentence; the key is the reason's value."""


def next_step(reason: str | None) -> str:
    """The remedy for a reason; empty for none and for words of a newer operator."""
    return NEXT_STEP.get(reason or "", "")
