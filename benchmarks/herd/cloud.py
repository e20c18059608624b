"""The simulated cloud with a herd for hardware: `python -m benchmarks.herd.cloud FOLDER`.

It prints where it is, as JSON. Each line on its standard input is answered with one: how many agents an
operator has taken over. They are counted anew after the line `anew`. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from pathlib import Path

from benchmarks.herd.server import Herd, words
from benchmarks.herd.vms import HerdVms
from simcloud.accounts import Account
from simcloud.scenario import Scenario
from simcloud.service import Service

MOST_INSTANCES = 10_000
BOOT_SECONDS = 10.0


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    herd, key = Herd(), secrets.token_urlsafe(24)
    account = Account(name="default", key=key, quotas={"instances": MOST_INSTANCES})
    staff, scenario = secrets.token_urlsafe(24), Scenario(boot_seconds=BOOT_SECONDS)
    async with Service(folder, HerdVms(herd), [account], staff, scenario=scenario) as service:
        print(json.dumps({"endpoint": service.endpoint, "key": key}), flush=True)
        async for word in words():
            if word == "anew":
                for agent in herd.agents.values():
                    agent.greetings = 0
            print(sum(agent.greetings > 0 for agent in herd.agents.values()), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(sys.argv[1])))
