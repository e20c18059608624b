"""Cut a status to what its schema holds, so that no long text ever costs a status write.

The API server refuses a whole patch for one message that is a character too long, and with it the intent that
the patch records. Whatever comes from outside (a provider's words, a package manager's output, a user's
exception) therefore passes through here on its way into a status.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from skyward.contract.meta import Observed, clip
from skyward.contract.names import NODE, POOL, TASK, Kind
from skyward.contract.node import ComputeNodeStatus
from skyward.contract.pool import ComputePoolStatus
from skyward.contract.schema import Schema, structural
from skyward.contract.task import TaskStatus

_STATUSES: dict[Kind, type[Observed]] = {POOL: ComputePoolStatus, NODE: ComputeNodeStatus, TASK: TaskStatus}
#: Of these the end tells more than the beginning.
_KEEP_TAIL = frozenset({"log", "traceback"})
#: Cutting these would make them wrong instead of short; the API server may refuse them.
_WHOLE = frozenset(
    {"package", "digest", "succeededIndexes", "failedIndexes", "token", "providerId", "hostKey"}
)


def fit_status(kind: Kind, status: dict[str, Any]) -> dict[str, Any]:
    """A copy of a status (or of a merge patch of one) in which every text and list is within its bound.

    Unknown fields and nulls stay as they are. Payloads, digests, index ranges and identities are never cut.
    """
    fitted: dict[str, Any] = _fit(status, _schema(kind), "")
    return fitted


@cache
def _schema(kind: Kind) -> Schema:
    return structural(_STATUSES[kind])


def _fit(value: Any, schema: Schema, name: str) -> Any:
    if isinstance(value, dict):
        below = schema.get("properties", {})
        return {key: _fit(each, below.get(key, {}), key) for key, each in value.items()}
    if isinstance(value, list | tuple):
        kept = value[: schema.get("maxItems")]
        return [_fit(each, schema.get("items", {}), name) for each in kept]
    if isinstance(value, str) and "maxLength" in schema and name not in _WHOLE:
        return clip(value, schema["maxLength"], keep="tail" if name in _KEEP_TAIL else "head")
    return value
