"""`skyward plan -f POOL.yaml`: what a manifest would buy, at which price at most. Nothing is ordered."""

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyward.cli.offers import NOTHING_FITS, document, show
from skyward.cli.options import NamespaceOption
from skyward.cli.plans import Manifest, read_manifest
from skyward.cli.table import connected
from skyward.cli.why import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skyward.offer import Offer

TOO_DEAR = 4
_HOURS = 24
_SHOWN = 5


def plan(
    file: Annotated[Path, typer.Option("--file", "-f", help="A manifest with one ComputePool.")],
    max_hourly: Annotated[
        str | None, typer.Option(help="Fail if all wanted nodes cost more US dollars per hour than this.")
    ] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="Text, or one JSON object.")] = Form.TEXT,
    namespace: NamespaceOption = None,
) -> None:
    """Rehearse a manifest: check it, and say what its nodes would be and cost, and which come after those.

    The API server and the operator check it by a suspended copy, which buys nothing and is deleted again.
    Prices are those of now; spot prices move.

    Exit status: 0 it would work; 1 it was refused; 2 an option is wrong; 3 nothing fits; 4 it is too dear.
    """
    manifest = read_manifest(file)
    limit = _limit(max_hourly)
    from skyward.market import read_offers

    with connected(start=True) as api:
        place = namespace or manifest.namespace or api.connection.namespace
        found, refused = read_offers(api, place, manifest.spec, title="plan")
    costs = cost_of(manifest, found)
    if output is Form.JSON:
        told = {"pool": manifest.name, **costs, "offers": [document(each) for each in found[:_SHOWN]]}
        told["refused"] = [{"candidate": each.candidate, "message": each.message} for each in refused]
        print(json.dumps(told, indent=2))
    else:
        for line in words(manifest, costs):
            print(line)
        show(found, refused, _SHOWN)
    if not found:
        raise typer.Exit(NOTHING_FITS)
    if limit is not None and (costs["hourly"] is None or Decimal(costs["hourly"]) > limit):
        raise typer.Exit(TOO_DEAR)


def cost_of(manifest: Manifest, found: "Sequence[Offer]") -> dict[str, Any]:
    """What the wanted nodes cost, and what the most nodes would, if all are like the first offer."""
    nodes = manifest.spec.get("nodes") or {}
    desired = int(nodes.get("desired", 1))
    most = int(nodes.get("max") or desired)
    price = next((each.hourly_price for each in found if each.refusal is None), None)

    def times(number: int) -> str | None:
        return f"{price * number:f}" if price is not None else None

    return {
        "nodes": desired,
        "mostNodes": most,
        "hourly": times(desired),
        "daily": times(desired * _HOURS),
        "mostHourly": times(most),
    }


def words(manifest: Manifest, costs: dict[str, Any]) -> list[str]:
    """The costs in words."""
    head = f"pool {manifest.name}: the manifest is valid"
    if costs["hourly"] is None:
        return [head, "no price is known for what would be bought first"]
    nodes = f"{costs['nodes']} node{'' if costs['nodes'] == 1 else 's'}"
    told = f"{nodes} of the first offer cost ${costs['hourly']}/h, ${costs['daily']} a day"
    if costs["mostNodes"] > costs["nodes"]:
        told += f"; {costs['mostNodes']} nodes, the most, ${costs['mostHourly']}/h"
    return [head, told]


def _limit(text: str | None) -> Decimal | None:
    try:
        return Decimal(text) if text is not None else None
    except ArithmeticError:
        raise typer.BadParameter(f"--max-hourly {text!r} is no amount such as 12.50") from None
