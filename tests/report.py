"""Count what ran in each layer, and fail when a layer failed, skipped a test, or ran none.

`make test` ends with it. It reads the JUnit files that pytest wrote into `reports/`, so that a layer that
was never started is noticed as well.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

REPORTS = Path(__file__).resolve().parent.parent / "reports"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer of tests did."""

    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """True when tests ran and each of them passed."""
        return self.passed > 0 and self.failed == 0 and self.skipped == 0


def main(names: list[str]) -> int:
    """Print one line per layer and the total; return the exit status."""
    layers = [read(name) for name in names]
    print(f"{'layer':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for layer in layers:
        print(f"{layer.name:<10}{layer.passed:>8}{layer.failed:>8}{layer.skipped:>9}{layer.seconds:>9.1f}")
    for layer in layers:
        if not layer.is_whole:
            print(f"layer {layer.name} is not whole: every layer must run, and skip nothing")
    print(f"{sum(layer.passed for layer in layers)} passed, {sum(layer.failed for layer in layers)} failed")
    return 0 if all(layer.is_whole for layer in layers) else 1


def read(name: str) -> Layer:
    """Read `reports/<name>.xml`; a file that is missing counts as a layer that ran nothing."""
    path = REPORTS / f"{name}.xml"
    if not path.exists():
        return Layer(name, 0, 0, 0, 0.0)
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    total = sum(int(suite.get("tests", 0)) for suite in suites)
    failed = sum(int(suite.get("failures", 0)) + int(suite.get("errors", 0)) for suite in suites)
    skipped = sum(int(suite.get("skipped", 0)) for suite in suites)
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    return Layer(name, total - failed - skipped, failed, skipped, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
