"""`make bench`: what Skyward does, beside its limits and its peers, in one table.

    python -m benchmarks [NAME…] [--json FILE] [--quick] [--no-peers]

It uses control planes of its own in temporary folders and leaves nothing running. A path that fails says why
and stops no other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import bytes as large_bytes
from benchmarks import calls, executors, logs, maps, provision, scale, starts, steady
from benchmarks.peers import run as peers
from benchmarks.stage import NotMeasured, Stage, limited
from benchmarks.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.row import Row

    type Measurement = Callable[[Stage], Iterator[Row]]

MEASUREMENTS: Final[dict[str, Measurement]] = {
    "imports": starts.imports,
    "control-plane": starts.control_planes,
    "pools": starts.pools,
    "call": calls.one_call,
    "executor": executors.executors,
    "map": maps.narrow,
    "wide-map": maps.wide,
    "bytes": large_bytes.small,
    "many-bytes": large_bytes.large,
    "lines": logs.lines,
    "chatty": logs.beside,
    "scale": scale.scale,
}
APART: Final[dict[str, Measurement]] = {"provision": provision.provision, "steady": steady.steady}
"""Measured when they are named: minutes that pass on a cloud's clock would be missing for the others."""
_LONGEST_SECONDS: Final = 300
"""For one measurement,"""
_LONGEST_APART_SECONDS: Final = 12 * 60
"""for one of those that are measured apart, and"""
_WHOLE_SECONDS: Final = 14 * 60
"""for all of them: what has no time left is not measured, and says so."""


def main() -> int:
    """Measure what was asked for; 0 where everything could be measured."""
    asked = _arguments()
    os.environ["SKYWARD_CONTROL_PLANE"] = "local"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave nothing running
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    table = Table(quick=asked.quick, begun=begun, load=os.getloadavg()[0])
    stage, end = Stage(quick=asked.quick), time.monotonic() + _WHOLE_SECONDS
    try:
        if not asked.no_peers:
            _measure_peers(table)
        for name in asked.names or MEASUREMENTS:
            _measure(name, stage, table, end)
    finally:
        stage.close()
        print(table.text(), flush=True)
        if asked.json is not None:
            asked.json.write_text(json.dumps(table.json(), indent=2) + "\n")
    return 1 if table.failed else 0


def _measure_peers(table: Table) -> None:
    for name in peers.TITLES:
        _say(f"peer {name}")
        table.peers[name] = peers.measure(name, quick=table.quick)
        if reason := table.peers[name].skipped:
            _say(f"SKIPPED {table.peers[name].title}: {reason}")


def _measure(name: str, stage: Stage, table: Table, end: float) -> None:
    _say(name)
    longest = _LONGEST_APART_SECONDS if name in APART else _LONGEST_SECONDS
    left = min(longest, int(end - time.monotonic()))
    try:
        if left < 1:
            raise NotMeasured(f"no time is left: all of it may take {_WHOLE_SECONDS // 60} minutes")
        with limited(left):
            for row in (MEASUREMENTS | APART)[name](stage):
                table.rows.append(row)
    except NotMeasured as reason:
        table.failed[name] = str(reason)
    except Exception as error:
        traceback.print_exc()
        table.failed[name] = f"{type(error).__name__}: {error}"
        stage.close()  # whatever it left behind disturbs nobody
    if name in table.failed:
        _say(f"FAILED {name}: {table.failed[name]}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Skyward beside its limits and its peers."
    )
    apart = f"by name only: {', '.join(APART)}"
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of: {', '.join(MEASUREMENTS)}; all of these without; {apart}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works")
    parser.add_argument("--no-peers", action="store_true", help="without other systems")
    asked = parser.parse_args()
    known = MEASUREMENTS | APART
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return asked


def _say(text: str) -> None:
    """What is going on, for whoever waits; the table itself goes to stdout."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
