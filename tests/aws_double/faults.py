"""What goes wrong, by script: `{"action": "RunInstances", "code": "RequestLimitExceeded", "times": 1}`.

`code` is answered instead of doing anything. `effect` is `lose` (done, and the connection is cut) or `cut`
(nothing done, and the connection is cut), or `page` (a page of two). `region` limits a fault to one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.aws_double.asked import Asked


@dataclass(slots=True)
class Fault:
    """One entry."""

    action: str
    code: str = ""
    effect: str = ""
    message: str = "by script"
    status: int = 400
    times: int = 1
    region: str = ""


@dataclass(slots=True)
class Script:
    """All entries that are left."""

    entries: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def replace(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Forget what was there."""
        with self._lock:
            self.entries = [Fault(**each) for each in entries]

    def draw(self, asked: Asked) -> Fault | None:
        """What happens to this request."""
        with self._lock:
            for fault in self.entries:
                if fault.action == asked.action and fault.region in ("", asked.region) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None
