"""What a process takes of the processor, which other work on the computer moves less than the wall clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PATIENCE_SECONDS = 120


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time until now, its children's not among them."""
    times = process.cpu_times()
    return times.user + times.system


async def settle(process: psutil.Process) -> None:
    """Wait until it has nothing to do: less than a tenth of a processor in half a second."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            before = cpu(process)
            await asyncio.sleep(0.5)
            if cpu(process) - before < 0.05:
                return
