"""`make bench`: start-up, one call, a map, each beside its limit measured in the same run.

It uses control planes of its own in temporary folders and leaves nothing running.
"""

from __future__ import annotations

import os

from benchmarks import calls, executors, figures, starts


def main() -> None:
    """Run all measurements, one after the other."""
    os.environ["SKYWARD_CONTROL_PLANE"] = "local"
    figures.head()
    starts.imports()
    starts.control_planes()
    with starts.control_plane() as endpoint:
        starts.pools()
        calls.one_call(endpoint)
        calls.maps()
        executors.executors()


if __name__ == "__main__":
    main()
