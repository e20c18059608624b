"""One request to AWS, read from the wire: what is asked where, by whom, with which parameters."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    key: str
    region: str
    service: str
    action: str
    form: Mapping[str, str] = field(default_factory=dict)
    """Parameters of EC2's protocol."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the services that speak JSON."""

    @property
    def permission(self) -> str:
        """As IAM writes it."""
        return f"{self.service}:{self.action}"

    def members(self, name: str) -> list[str]:
        """The values of a list."""
        found = [(key, value) for key, value in self.form.items() if re.fullmatch(rf"{name}\.\d+", key)]
        return [value for _, value in found]

    def filters(self) -> dict[str, list[str]]:
        """The filters by name."""
        names = {key: value for key, value in self.form.items() if re.fullmatch(r"Filter\.\d+\.Name", key)}
        return {
            name: [value for each, value in self.form.items() if each.startswith(f"{key[:-5]}.Value.")]
            for key, name in names.items()
        }


def read(environ: dict[str, Any]) -> Asked | None:
    """The request; None for one that nobody signed. The body can be read again afterwards."""
    match = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        return None
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    key, region, service = match.groups()
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return Asked(key, region, service, target.rpartition(".")[2], document=json.loads(body or b"{}"))
    form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    return Asked(key, region, service, form.get("Action", ""), form)
