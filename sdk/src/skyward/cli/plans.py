"""A pool in a manifest, as a person wrote it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from skyward.contract.names import API_VERSION, POOL


@dataclass(frozen=True, slots=True)
class Manifest:
    """One pool, not yet checked by anybody."""

    name: str
    namespace: str | None
    spec: dict[str, Any]


def read_manifest(file: Path) -> Manifest:
    """The one ComputePool in a YAML or JSON file; other kinds beside it are left alone.

    Raises typer.BadParameter where there is none, or more than one.
    """
    import yaml

    try:
        documents = [each for each in yaml.safe_load_all(file.read_text()) if isinstance(each, dict)]
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{file} is no YAML: {error}") from None
    pools = [each for each in documents if each.get("kind") == POOL.kind]
    if len(pools) != 1:
        found = ", ".join(str(each.get("kind")) for each in documents) or "nothing"
        raise typer.BadParameter(f"{file} must have exactly one {POOL.kind}, it has: {found}")
    pool = pools[0]
    if pool.get("apiVersion") != API_VERSION:
        raise typer.BadParameter(f"{file}: apiVersion must be {API_VERSION}, not {pool.get('apiVersion')}")
    spec, metadata = pool.get("spec"), pool.get("metadata")
    if not isinstance(spec, dict) or not isinstance(metadata, dict) or not metadata.get("name"):
        raise typer.BadParameter(f"{file}: the {POOL.kind} has no spec or no metadata.name")
    return Manifest(str(metadata["name"]), metadata.get("namespace"), spec)
