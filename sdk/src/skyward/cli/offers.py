"""`skyward offers`: what a pool could buy now, best first. Nothing is ordered."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyward.cli.options import NamespaceOption
from skyward.cli.plans import read_manifest
from skyward.cli.table import connected, print_rows
from skyward.cli.why import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward.offer import Offer, Refused

NOTHING_FITS = 3
WRONG = 2


def offers(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A manifest with the ComputePool that is asked for.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Provider, such as aws or sim.")] = None,
    credentials: Annotated[str | None, typer.Option(help="Secret with the provider's credentials.")] = None,
    accelerator: Annotated[str | None, typer.Option(help="Accelerator, such as H100 or 8xH100.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Only this region; may be repeated.")] = None,
    instance_type: Annotated[list[str] | None, typer.Option(help="Only this type; may be repeated.")] = None,
    vcpus: Annotated[int | None, typer.Option(min=1, help="Least number of virtual processors.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="Least memory in GiB.")] = None,
    market: Annotated[str | None, typer.Option(help="spot, on-demand, spot-if-available, cheapest.")] = None,
    max_price: Annotated[str | None, typer.Option(help="Most US dollars per hour.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Show so many.")] = 20,
    output: Annotated[Form, typer.Option("--output", "-o", help="A table, or one JSON object.")] = Form.TEXT,
    namespace: NamespaceOption = None,
) -> None:
    """List what could be bought now, in the order in which a pool would ask for it.

    The operator asks the provider, by a pool that is made suspended for the question and deleted again.

    Exit status: 0 there are offers; 1 the question could not be asked; 2 an option is wrong; 3 nothing fits.
    """
    if (file is None) == (provider is None):
        raise typer.BadParameter("give either --file POOL.yaml or --provider NAME")
    if file is not None:
        spec = read_manifest(file).spec
    else:
        candidate = {
            "name": "asked",
            "provider": provider,
            "credentialsRef": {"name": credentials} if credentials else None,
            "accelerator": _accelerator(accelerator),
            "regions": region,
            "instanceTypes": instance_type,
            "vcpus": vcpus,
            "memoryGiB": memory,
            "market": market or "cheapest",
            "maxHourlyPrice": max_price,
        }
        spec = {"candidates": [{name: value for name, value in candidate.items() if value}]}
    from skyward.market import read_offers

    with connected(start=True) as api:
        found, refused = read_offers(api, namespace or api.connection.namespace, spec)
    if output is Form.JSON:
        print(json.dumps({"offers": [document(each) for each in found], "refused": [
            {"candidate": each.candidate, "reason": each.reason, "message": each.message} for each in refused
        ]}, indent=2))  # fmt: skip
    else:
        show(found, refused, top)
    if not found:
        raise typer.Exit(NOTHING_FITS)


def show(found: "Sequence[Offer]", refused: "Sequence[Refused]", top: int) -> None:
    """Print offers as a table, and below it what has none."""
    if found:
        rows = [_row(each) for each in found[:top]]
        print_rows(rows[0], (row.values() for row in rows), wraps="NOT NOW")
        if len(found) > top:
            print(f"… and {len(found) - top} more (--top {len(found)})")
    for each in refused:
        print(f"candidate {each.candidate}: {each.reason}: {each.message}")


def document(offer: "Offer") -> dict[str, Any]:
    """An offer as JSON."""
    fields = {name: getattr(offer, name) for name in offer.__slots__}
    return {name: _plain(value) for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int) else f"{value:f}"


def _row(offer: "Offer") -> dict[str, str]:
    count = f"{offer.accelerator_count:f}x" if offer.accelerator_count is not None else ""
    return {
        "PROVIDER": offer.provider,
        "REGION": offer.region,
        "TYPE": offer.instance_type,
        "MARKET": offer.market,
        "$/H": _words(offer.hourly_price),
        "ON-DEMAND $/H": _words(offer.on_demand_price),
        "ACCELERATOR": f"{count}{offer.accelerator}" if offer.accelerator else "-",
        "VCPUS": _words(offer.vcpus),
        "GIB": _words(offer.memory_gib),
        "NOT NOW": offer.refusal or "-",
    }


def _words(value: Any) -> str:
    return "-" if value is None else str(_plain(value))


def _accelerator(text: str | None) -> dict[str, str] | None:
    """`H100`, or `8xH100`."""
    if not text:
        return None
    count, cross, name = text.partition("x")
    if cross and count.replace(".", "", 1).isdigit():
        return {"name": name, "count": count}
    return {"name": text}
