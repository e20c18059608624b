"""What a pool's health says that its agents shall check, as it is sent to them. Pure.

Whether the checks of an agent are those of the pool is seen by their digest, so nobody sends them twice and a
change of the pool reaches nodes that are there.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyward.contract.pool_options import Health


@dataclass(frozen=True, slots=True)
class Checkup:
    """Checks of one node, and the pickled function of the one that has one. Empty: nothing to check."""

    digest: str = ""
    checks: list[dict[str, Any]] = field(default_factory=list, compare=False)
    function: bytes = field(default=b"", repr=False, compare=False)


NOTHING = Checkup()


@lru_cache(maxsize=64)
def checkup(health: Health) -> Checkup:
    """The checks that a pool asks for."""
    checks: list[dict[str, Any]] = []
    function = b""
    if (probe := health.probe) is not None:
        checks.append(
            {
                "name": "probe",
                "argv": list(probe.command),
                "period": probe.period_seconds,
                "timeout": probe.timeout_seconds,
                "threshold": probe.failure_threshold,
            }
        )
    if (checker := health.checker) is not None:
        function = base64.b64decode(checker.function)
        checks.append(
            {
                "name": "checker",
                "period": checker.period_seconds,
                "timeout": checker.timeout_seconds,
                "threshold": checker.failure_threshold,
                "delay": checker.initial_delay_seconds,
            }
        )
    if not checks:
        return NOTHING
    digest = hashlib.sha256(json.dumps(checks, sort_keys=True).encode() + function).hexdigest()
    return Checkup(digest[:32], checks, function)
