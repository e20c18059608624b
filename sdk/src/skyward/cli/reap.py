"""`skyward reap`: find machines that belong to no node, and have them ended now."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyward.cli.table import connected, print_rows
from skyward.cli.why import Form
from skyward.contract.names import ACCOUNTS_SUFFIX, LEASE_NAME, SYSTEM_NAMESPACE, Kind
from skyward.errors import GatewayError

if TYPE_CHECKING:
    from skyward.cluster.api import Api

BLOCKED = 3
NOT_LOOKED_THROUGH = 4
CONFIG_MAP = Kind("ConfigMap", "configmaps", "configmap", "cm", group="", version="v1")
_STATES = {
    "ended": "is ended",
    "watched": "watched: a listing may be wrong for a while",
    "blocked": "NOT ENDED: too many at once",
}


def reap(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be ended now; change nothing.")
    ] = False,
    end: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many may be ended at once in an account, although they are too many to be believed.",
        ),
    ] = 0,
    provider: Annotated[str | None, typer.Option(help="Show only the accounts of this provider.")] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="A table, or one JSON object.")] = Form.TEXT,
) -> None:
    """Have the operator look through all accounts now, and end machines that belong to no node.

    It does so by itself once a minute. Without an operator nobody knows what belongs to whom, and nothing is
    ended. Needs the right to update the operator's ConfigMap.

    Exit status: 0 all was looked through, and nothing is held back; 1 it could not be asked; 3 there are more
    machines without a node than are ended without `--end`; 4 an account could not be looked through.
    """
    with connected() as api:
        accounts = _sweep(api, dry_run=dry_run, end=end)
    shown = [each for each in accounts if provider in (None, each["provider"])]
    if output is Form.JSON:
        print(json.dumps({"dryRun": dry_run, "accounts": shown}, indent=2))
    else:
        _show(shown, dry_run=dry_run)
    if not all(each["complete"] for each in shown):
        raise typer.Exit(NOT_LOOKED_THROUGH)
    if any(orphan["state"] == "blocked" for each in shown for orphan in each["orphans"]):
        raise typer.Exit(BLOCKED)


def _sweep(api: "Api", *, dry_run: bool, end: int) -> list[dict[str, Any]]:
    from skyward.cluster.gateway import Gateway
    from skyward.cluster.tickets import to_read

    kept = api.get(CONFIG_MAP, SYSTEM_NAMESPACE, f"{LEASE_NAME}{ACCOUNTS_SUFFIX}")
    if kept is None:
        return []  # no order has ever gone anywhere
    gateway = Gateway(api, to_read(api, CONFIG_MAP, kept))
    try:
        return gateway.sweep(dry_run=dry_run, end=end)
    except GatewayError as error:
        raise GatewayError(
            error.message,
            remedy="see whether the operator runs (`skyward local status`); until it does, nothing is ended. "
            "Machines that wait for it power themselves off after their pool's lifetime.ttlSeconds",
        ) from None
    finally:
        gateway.close()


def _show(accounts: list[dict[str, Any]], *, dry_run: bool) -> None:
    if not accounts:
        print("nothing was ever bought through this control plane")
    rows = [
        (_account(each), orphan["id"], orphan["node"] or "-", orphan["created"] or "-", orphan["why"],
         _state(orphan["state"], dry_run=dry_run))
        for each in accounts for orphan in each["orphans"]
    ]  # fmt: skip
    if rows:
        print_rows(("ACCOUNT", "MACHINE", "NODE", "CREATED", "WHY", "WHAT"), rows)
    for each in accounts:
        blocked = sum(orphan["state"] == "blocked" for orphan in each["orphans"])
        if not each["complete"]:
            print(f"✘ {_account(each)} was not looked through: {each['trouble']}; nothing is ended there")
        elif blocked:
            print(
                f"✘ {_account(each)}: {blocked} machines belong to no node, more than the {each['limit']} "
                f"that are ended without asking. If they may go: skyward reap --end {blocked}"
            )
        else:
            words = f", {each['elsewhere']} of other namespaces" if each["elsewhere"] else ""
            without = len(each["orphans"])
            print(f"✔ {_account(each)}: {each['machines']} machines{words}, {without} without a node")


def _account(account: dict[str, Any]) -> str:
    secret = f" ({account['namespace']}/{account['secret']})" if account["secret"] else ""
    return f"{account['provider']}{secret}"


def _state(state: str, *, dry_run: bool) -> str:
    return "would be ended" if dry_run and state == "ended" else _STATES[state]
