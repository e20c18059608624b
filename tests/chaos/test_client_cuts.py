"""Cuts at random bytes between a program and the API server, and between it and the gateway.

`make chaos SEEDS=300` plays that many rounds more, half of them each way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.chaos import client_cuts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import ControlPlane

MORE = int(os.environ.get("SEEDS") or 0) // 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: sockets of machines are in it."""
    made = Path(tempfile.mkdtemp(prefix="sky-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(400 + 60 * MORE)
@pytest.mark.parametrize("through_api_server", [False, True], ids=["apart", "through the API server"])
async def test_cuts_lose_nothing_and_repeat_nothing(
    control_plane: ControlPlane, namespace: str, folder: Path, through_api_server: bool
) -> None:
    seeds = range(8 + MORE)
    summary = await client_cuts.run(
        control_plane, namespace, folder, seeds, through_api_server=through_api_server
    )
    print(summary)
    assert summary.cuts.total() >= 8
