"""The API server as measurements see it: a session, and what it was asked until now, by its own count."""

from __future__ import annotations

import ssl
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from skyward.contract.names import API_VERSION, GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward.local.endpoint import Endpoint

BASE: Final = f"/apis/{API_VERSION}/namespaces/default"
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
_ASKED: Final = "apiserver_request_total"


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests by verb, group, resource and subresource. Those of the API server to itself are in it as well:
    its leases and the like, which `writes` leaves out."""

    counts: Mapping[tuple[str, str, str, str], float]

    def since(self, before: Asked) -> Asked:
        """What came on top of an earlier count."""
        grown = {key: count - before.counts.get(key, 0.0) for key, count in self.counts.items()}
        return Asked({key: count for key, count in grown.items() if count})

    def writes(self, resource: str | None = None) -> float:
        """Writes of Skyward's kinds, of events and of what the operator keeps besides; or of one of them."""
        return sum(
            count
            for (verb, group, what, _), count in self.counts.items()
            if verb in WRITES
            and what == (resource or what)
            and (group == GROUP or what in ("events", "secrets", "configmaps"))
        )

    def reads(self, resource: str) -> float:
        """Single objects of a resource that were read."""
        return sum(n for (verb, _, what, _), n in self.counts.items() if (verb, what) == ("GET", resource))


def session(endpoint: Endpoint) -> aiohttp.ClientSession:
    """An administrator's connections; paths are relative to the server."""
    tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(endpoint.ca_file)))
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    return aiohttp.ClientSession(endpoint.server, headers=headers, connector=tls)


async def send(request: Any) -> Any:
    """Have a request answered. Raises aiohttp.ClientResponseError."""
    async with request as answer:
        answer.raise_for_status()
        return await answer.json()


async def asked(http: aiohttp.ClientSession) -> Asked:
    """What it was asked until now."""
    async with http.get("/metrics") as answer:
        answer.raise_for_status()
        text = await answer.text()
    counts: dict[tuple[str, str, str, str], float] = defaultdict(float)
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_ASKED))
    for family in text_string_to_metric_families(f"# TYPE {_ASKED} counter\n{lines}\n"):
        for sample in family.samples:
            labels = sample.labels
            key = (labels["verb"], labels["group"], labels["resource"], labels["subresource"])
            counts[key] += sample.value
    return Asked(counts)
