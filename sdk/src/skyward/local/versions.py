"""What to do about a control plane that another version of skyward, or another installation, started."""

import re
from enum import Enum
from pathlib import Path

import skyward
from skyward.contract.names import SCHEMA_VERSION
from skyward.local.status import Status


class Verdict(Enum):
    """How this client stands to the control plane that runs."""

    SHARE = "share"
    REPLACE = "replace"
    """It is older, or its interpreter was deleted: stop it gracefully and start ours on the same data."""
    NEWER = "newer"
    """It is newer: this client must not touch it."""


def judge(status: Status) -> Verdict:
    """Compare the control plane that runs with this package."""
    running = (release(status.skyward), release(status.schema))
    mine = (release(skyward.__version__), release(SCHEMA_VERSION))
    if running > mine:
        return Verdict.NEWER
    if running < mine or not Path(status.python).exists():
        return Verdict.REPLACE
    return Verdict.SHARE


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, which is all that is compared: `0.2.1rc1` is 0.2.1."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()
