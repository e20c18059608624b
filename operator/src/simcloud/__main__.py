"""The command line: `simcloud up`, `simcloud audit`, `simcloud clear`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from simcloud.accounts import load_or_make
from simcloud.bill import audit
from simcloud.clock import Clock
from simcloud.ledger import Ledger, LedgerInUse, read
from simcloud.scenario import Scenario
from simcloud.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simcloud.vms import Vms

OWNER_TAG = "skyward.dev/node-uid"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; 0 when all is well, 1 when something is left (audit), 2 for wrong values."""
    given = parser().parse_args(arguments)
    given.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        match given.command:
            case "audit":
                sys.exit(show_audit(given.data))
            case "clear":
                sys.exit(clear(given.data))
            case _:
                sys.exit(start(given))
    except (LedgerInUse, OSError, ValueError) as error:
        print(f"simcloud: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """Commands and flags."""
    made = argparse.ArgumentParser(prog="simcloud", description="A cloud on this computer, to rehearse on.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="run the cloud until Ctrl-C; machines stay, and are found again")
    up.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    up.add_argument("--scenario", type=Path, help="JSON file that says what goes wrong (default: nothing)")
    up.add_argument("--on-paper", action="store_true", help="sell machines without an SSH server")
    check = commands.add_parser("audit", help="say what was bought, what is left and what it costs")
    away = commands.add_parser("clear", help="end every machine that is left; the cloud must not run")
    for command in (up, check, away):
        command.add_argument(
            "--data", type=Path, required=True, help="folder for the ledger and the machines"
        )
    return made


def start(given: argparse.Namespace) -> int:
    """Run the cloud in the foreground."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    scenario = read_scenario(given.scenario)
    asyncio.run(serve(given.data, scenario, given.port, on_paper=given.on_paper))
    return 0


async def serve(folder: Path, scenario: Scenario | None, port: int, *, on_paper: bool) -> None:
    """Serve until SIGINT or SIGTERM. The first line of output says where, as JSON."""
    from simcloud.service import Service
    from simcloud.vms import NoVms, SshVms

    vms: Vms = NoVms() if on_paper else SshVms(folder)
    accounts = load_or_make(folder / "accounts.json")
    admin_key = load_admin_key(folder / "admin.key")
    async with Service(folder, vms, accounts, admin_key, scenario=scenario, port=port) as service:
        where = {"endpoint": service.endpoint, "accounts": str(folder / "accounts.json")}
        print(json.dumps(where), flush=True)  # noqa: T201
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await ended.wait()


def read_scenario(path: Path | None) -> Scenario | None:
    """The script in a file. Raises ValueError that names the field."""
    if path is None:
        return None
    try:
        return Scenario.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"scenario {path}: {place}: {first['msg']}") from None


def load_admin_key(path: Path) -> str:
    """The staff's key, made at the first start."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text().strip()


def show_audit(folder: Path) -> int:
    """Print what the ledger says, as JSON; 1 while something is left, or was bought twice."""
    state = State()
    for event in read(folder / "ledger.jsonl"):
        state.apply(event)
    found = audit(state, Clock(state.shift).now(), OWNER_TAG)
    print(json.dumps(asdict(found) | {"amount": f"{found.amount:f}"}, indent=2))  # noqa: T201
    return int(bool(found.alive or found.bought_twice or found.at_once or found.side))


def clear(folder: Path) -> int:
    """End what is left, and write it down; 1 if something does not end."""
    from simcloud.cloud import Cloud
    from simcloud.conductor import record_gone
    from simcloud.vms import SshVms

    cloud = Cloud(Ledger(folder / "ledger.jsonl"), SshVms(folder))
    for instance in cloud.state.live():
        if cloud.vms.power_off(instance.id):
            record_gone(cloud, instance, "cleared away")
            print(f"{instance.id} {instance.name} ended")  # noqa: T201
    cloud.ledger.close()
    return int(bool(cloud.state.live()))


if __name__ == "__main__":
    main()
