"""What stands in the header of each frame, and the words that both sides use for failures.

The classes are `TypedDict`s: a header is built and read as a plain dict and costs nothing at run time.
A field that is not `Required` may be absent. Times are seconds since the epoch, durations are seconds.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Literal, NotRequired, Self, TypedDict

PROTOCOL = 7
"""Version of the frames. The agent refuses a HELLO of another one."""

BLOB_REFUSED = "BlobRefused"
"""The reason of a NOTICE: the agent does not take the bytes of this digest, and drops what comes of them."""

INTERRUPTION: Final = "Interruption"
"""The reason of a NOTICE: the machine says that its provider takes it back."""

ILLNESS: Final = "Illness"
"""The reason of a NOTICE: the node failed its health check, or is well again."""

BLOB_WINDOW = 24 * 1024 * 1024
"""Bytes of blobs that may be on their way to an agent, or wait there for its disk."""

VALUE_LIMIT = 16 * 1024
"""A result of a function or command in JSON is put beside the pickle up to this many bytes."""

TEXT_LIMIT = 32 * 1024
"""Tracebacks and messages are cut to this many characters."""

SLICE_ITEMS = 1024
SLICE_BYTES = 256 * 1024
"""The most items, and the most bytes of arguments, in one slice."""

BATCH_SECONDS = 0.02
"""How long the outcomes of a slice wait for one another."""

type Stream = Literal["stdout", "stderr"]
type Executor = Literal["process", "thread"]


class FailureReason(StrEnum):
    """Why a call failed. The values are the Task reasons of the contract."""

    USER_EXCEPTION = "UserException"
    COMMAND_FAILED = "CommandFailed"
    COMMAND_NOT_FOUND = "CommandNotFound"
    NOT_DESERIALIZABLE = "NotDeserializable"
    NOT_PICKLABLE = "NotPicklable"
    RESULT_NOT_PICKLABLE = "ResultNotPicklable"
    WORKER_DIED = "WorkerDied"
    RUN_TIMEOUT = "RunTimeout"
    CANCELLED = "Cancelled"
    ENTRYPOINT_NOT_FOUND = "EntrypointNotFound"
    PAYLOAD_INVALID = "PayloadInvalid"
    RESULT_TOO_LARGE = "ResultTooLarge"
    RESULT_NOT_STORED = "ResultNotStored"
    INTERNAL_ERROR = "InternalError"


INTERRUPTED: Final = "Interrupted"
"""Stands in a RESULT where a `FailureReason` does: its worker was stopped because of another call in it. It
is no end of this one, which is tried again as if its node had been lost."""


class RefusalReason(StrEnum):
    """Why the agent did not take a frame. Nothing ran."""

    DUPLICATE = "Duplicate"
    """The attempt is known: `state` says running, done or acknowledged. A re-send is harmless."""
    FUNCTION_MISSING = "FunctionMissing"
    """Send FUNCTION (or BLOB) with the `digest` named, then the CALL again."""
    BLOB_MISSING = "BlobMissing"
    """Send BLOB with the `digest` named, then the CALL again."""
    BLOB_NOT_STORED = "BlobNotStored"
    """The node's disk did not take the `digest` named; sent again, it may."""
    RETURNED = "Returned"
    """`count` items of a slice from `attempt` on come back and did not run. They may be sent again at once,
    under the same names: nothing remembers them here."""
    MALFORMED = "Malformed"
    STOPPING = "Stopping"
    STALE_EPOCH = "StaleEpoch"
    """A newer operator has spoken to this agent. The connection is closed after this frame."""
    PROTOCOL = "Protocol"
    """The agent speaks another protocol. The connection is closed after this frame."""


class Entry(TypedDict, total=False):
    """A call that needs no pickled function: exactly one of `entrypoint`, `source` + `name`, `argv`."""

    entrypoint: str
    source: str
    name: str
    argv: list[str]
    working_directory: str
    env: dict[str, str]
    args: list[Any]
    kwargs: dict[str, Any]


class Context(TypedDict, total=False):
    """What a call can ask about itself; `skyward.agent.runtime.CallContext` adds the worker's own facts."""

    node: str
    total_nodes: int
    rank: int
    workers_per_node: int
    pool: str
    namespace: str
    peers: list[str]
    head_addr: str
    head_port: int
    job_id: str


class Metadata(TypedDict):
    """Where the machine can see that its provider takes it back; the operator's provider contract has the
    same fields, which say what they mean."""

    base: str
    path: str
    time_field: str
    base_variable: str
    headers: dict[str, str]
    token_path: str
    token_header: str
    token_headers: dict[str, str]
    every: float


class Hello(TypedDict):
    """HELLO: an operator takes the agent over. The newest one of the highest `epoch` wins. A call that
    returns more than `largest_result` bytes fails. `metadata` is asked from then on; an
    operator that does not know where it is changes nothing."""

    protocol: int
    operator: str
    epoch: int
    slots: NotRequired[int]
    executor: NotRequired[Executor]
    largest_result: NotRequired[int]
    metadata: NotRequired[Metadata]


class Function(TypedDict):
    """FUNCTION + body: a pickled function, kept by digest. One larger than a frame travels as BLOB."""

    digest: str


class Call(TypedDict):
    """CALL + body: run this once. The body is the pickled `(args, kwargs)` unless `args` names a blob.
    `blobs` are what function and arguments refer to by digest.

    With `sizes` it is a slice: items `index`, `index + 1`, … of one map with one function and one `number`,
    which one slot runs one after the other. The body is their arguments end to end, in pieces of these sizes
    (at most `SLICE_ITEMS` and `SLICE_BYTES`, never as a blob), `timeout` is that of each item, and `attempt`
    is the name of the first; the others are named alike (`attempt_id`). Each item ends on its own: in a
    `Batch`, in a RESULT as that of a single call (a large result, and whatever the agent had to end), or it
    is `Returned`. What runs says in its record that `context["id"]` is its node.

    `stream`: what it yields goes out in ITEM frames. `inputs`: so many of its arguments are pulled from its
    caller. Between client and operator a call is named by `index`, an attempt by `index` and `number`; a body
    too large for its frame goes ahead of it in BLOB frames, and `pieces` says how many bytes those are.
    """

    attempt: str
    task: str
    index: int
    number: int
    sizes: NotRequired[list[int]]
    function: NotRequired[str | None]
    entry: NotRequired[Entry]
    args: NotRequired[str]
    blobs: NotRequired[list[str]]
    context: NotRequired[Context]
    timeout: NotRequired[float | None]
    grace: NotRequired[float]
    stream: NotRequired[bool]
    inputs: NotRequired[int]


class Blob(TypedDict):
    """BLOB + body: a piece of a large payload, in order from offset 0; `last` closes it."""

    digest: str
    offset: int
    size: int
    last: bool


class Taken(TypedDict):
    """TAKEN: the bytes of this blob before `offset` are on the node's disk, or are not wanted there."""

    digest: str
    offset: int


class Cancel(TypedDict):
    """CANCEL: stop this attempt. It ends with a RESULT in any case.

    The name of any item stands for its slice: the item that runs ends, the others come back (all of them
    where none has begun). With `rest` only those that have not begun come back, and nothing is interrupted.
    """

    attempt: str
    rest: NotRequired[bool]
    grace: NotRequired[float]


class Limit(TypedDict):
    """LIMIT: the call may run so many seconds from its start, whatever its CALL said; None is no limit.

    The name of any item stands for its slice, and the limit holds for each item.
    """

    attempt: str
    timeout: float | None


class Ack(TypedDict):
    """ACK: these results are durable elsewhere, the agent may forget them."""

    attempts: list[str]


class Fetch(TypedDict):
    """FETCH: send the bytes of a large result from `offset` on, in RESULT_CHUNK frames with this `fetch`. A
    later FETCH of the same attempt ends what an earlier one began."""

    attempt: str
    offset: int
    fetch: int


class Logged(TypedDict):
    """LOGGED: the output of these attempts before that byte is on the operator's disk, or of no use there."""

    attempts: dict[str, int]


class Flow(TypedDict):
    """FLOW, to a worker with threads: what this attempt prints shall wait (`held`), or need not any more."""

    attempt: str
    held: bool


class Stop(TypedDict):
    """STOP: end the agent, after running calls have finished if `drain`."""

    drain: bool
    grace: NotRequired[float]


class Leaving(TypedDict):
    """LEAVING: the machine is gone in `left` seconds, and `reason` is what calls are told. Nothing is ended.
    It is also what a worker is told."""

    reason: str
    left: float


class CheckTerms(TypedDict):
    """One check of a node's health: the program `argv`, or without it the function in the body of WATCH. Its
    times are in seconds; `threshold` failures in a row make the node ill."""

    name: str
    argv: NotRequired[list[str]]
    period: float
    timeout: float
    threshold: int
    delay: NotRequired[float]


class Watch(TypedDict):
    """WATCH + body: check the node's health in this way from now on, and in no other. The body is the pickled
    function of the check that has one. `digest` names all of it, and is empty where nothing is checked."""

    digest: str
    checks: list[CheckTerms]


class Held(TypedDict):
    """One attempt that the agent knows. `count` says that it is that many items of a slice from `attempt` on:
    those of one batch, or the items of a slice (running or waiting) that no RESULT has been made of yet."""

    attempt: str
    count: NotRequired[int]
    state: Literal["running", "done"]


class Welcome(TypedDict):
    """WELCOME: the answer to HELLO. `boot_id` changes whenever the agent process does. `left`: the machine
    said that its provider takes it back in so many seconds. `watch`: the digest of the checks of its health
    that run; `ill`: why they make it ill.
    """

    protocol: int
    agent: str
    boot_id: str
    bundle: str
    python: str
    slots: int
    executor: Executor
    facts: dict[str, Any]
    held: list[Held]
    functions: list[str]
    blobs: list[str]
    left: NotRequired[float]
    watch: NotRequired[str]
    ill: NotRequired[str]


class Credit(TypedDict):
    """CREDIT: the reader of a call's items has taken this many ITEM frames. `replay`: what was on its way is
    lost, so say everything after that again. `close`: nobody reads on, so the generator shall end."""

    attempt: str
    taken: int
    replay: NotRequired[bool]
    close: NotRequired[bool]


class Item(TypedDict):
    """ITEM + body: a frame of what a call yields; `more`: the item goes on in the next frame. `end`: there
    are no more, and the RESULT follows once this one was taken as well."""

    attempt: str
    seq: int
    more: NotRequired[bool]
    end: NotRequired[bool]


class Input(TypedDict):
    """INPUT + body: a frame of what the caller's iterator number `input` gives. The last frame has `end`; its
    body is empty, or what the iterator raised."""

    attempt: str
    input: int
    seq: int
    more: NotRequired[bool]
    end: NotRequired[bool]


class Need(TypedDict):
    """NEED: a call has taken this many INPUT frames; the first one begins the iterator. `replay`: send those
    after them again."""

    attempt: str
    input: int
    taken: int
    replay: NotRequired[bool]


class Started(TypedDict):
    """STARTED: the call left the agent's queue; the run timeout counts from here. Once for a slice."""

    attempt: str
    pid: int
    time: float
    worker: int


class Log(TypedDict):
    """LOG + body: raw output of a call, cut between characters, `\\r` included.

    `at` is the place of its first byte in all that the attempt printed. `lost` bytes and `lost_lines` ends of
    line right before it were dropped by the agent. A frame comes again until LOGGED covers it.
    """

    attempt: str
    stream: Stream
    time: float
    at: int
    lost: NotRequired[int]
    lost_lines: NotRequired[int]


class Result(TypedDict):
    """RESULT + body: how an attempt ended. `size` counts the whole body; when `chunked` this frame's own
    body is empty, and FETCH gets the bytes (of `digest`)."""

    attempt: str
    ok: bool
    started: float
    duration: float
    size: int
    chunked: bool
    digest: NotRequired[str]
    error: NotRequired[dict[str, str]]
    value: NotRequired[Any]


class Batch(TypedDict):
    """RESULT + body, of `count` items of a slice from `attempt` on that have ended: the whole records of
    their outcomes (`skyward.wire.outcomes`) end to end, in pieces of these `lengths`. `failed` are those that
    ended badly, as places in the batch, ascending. It is held and acknowledged as one, by the name of its
    first item. It is sent when the slice is over, and before that whenever an outcome has waited for
    `BATCH_SECONDS`."""

    attempt: str
    count: int
    failed: list[int]
    lengths: list[int]


class ResultChunk(TypedDict):
    """RESULT_CHUNK + body: a piece of a large result, in order from the offset that was asked for."""

    attempt: str
    fetch: int
    offset: int
    last: bool


class Refused(TypedDict):
    """REFUSED: a frame that was not acted on, and why (`RefusalReason`); `count` items from `attempt` on
    where they come back."""

    attempt: str
    reason: str
    message: str
    count: NotRequired[int]
    state: NotRequired[str]
    digest: NotRequired[str]


class Notice(TypedDict):
    """NOTICE: something the operator should know that belongs to no attempt, e.g. `BlobCorrupt`. Of an
    `Interruption`, `left` are the seconds until it happens; an `Illness` says why, or nothing once it ends.
    """

    reason: str
    message: str
    digest: NotRequired[str]
    left: NotRequired[float]


class Pong(TypedDict):
    """PONG: the answer to PING, which is allowed before HELLO and then takes nothing over."""

    t: float
    load: float
    running: int
    queued: int
    agent: str
    boot_id: str
    bundle: str
    slots: int
    executor: Executor
    pid: int


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A failure in words: what can be shown without unpickling anything.

    `type` is the exception's qualified name without its `module`; `kind` says whose fault it is: `User` for
    the called code, `System` for everything around it; `reason` is a `FailureReason`.
    """

    type: str
    message: str
    module: str = ""
    traceback: str = ""
    kind: Literal["User", "System"] = "User"
    reason: str = FailureReason.USER_EXCEPTION

    @property
    def full_type(self) -> str:
        """The type with its module, where a reader would not know it without."""
        known = self.module in ("", "builtins", "__main__")
        return self.type if known else f"{self.module}.{self.type}"

    def to_json(self) -> dict[str, str]:
        """As it stands in RESULT headers and outcome records."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote; unknown fields are ignored, absent ones are empty."""
        return cls(
            type=str(data.get("type", "Exception")),
            message=str(data.get("message", "")),
            module=str(data.get("module", "")),
            traceback=str(data.get("traceback", "")),
            kind="System" if data.get("kind") == "System" else "User",
            reason=str(data.get("reason", FailureReason.USER_EXCEPTION)),
        )


def attempt_id(task_uid: str, index: int, number: int) -> str:
    """The name of one attempt at one call of a task."""
    return f"{task_uid}.{index}.{number}"


def parse_attempt(attempt: str) -> tuple[str, int, int]:
    """The inverse of `attempt_id`: task uid, index, number. Raises `ValueError` for anything else."""
    uid, index, number = attempt.rsplit(".", 2)
    return uid, int(index), int(number)
