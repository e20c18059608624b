"""Spot machines that are taken back: told two minutes before by their requests, and inside of the machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.aws_double.answers import Answer, answer, element

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.aws_double.asked import Asked


class Interruptions:
    """Which machines are taken back, and when."""

    def __init__(self) -> None:
        self.marked: dict[str, datetime] = {}

    def mark(self, name: str, seconds: float) -> None:
        """AWS will take a spot machine back."""
        self.marked[name] = datetime.now(UTC) + timedelta(seconds=seconds)

    def is_due(self, name: str) -> bool:
        """Whether a machine is taken now."""
        at = self.marked.get(name)
        return at is not None and datetime.now(UTC) >= at

    def requests(self, asked: Asked, instances: Sequence[Any]) -> Answer:
        """DescribeSpotInstanceRequests, as far as they are marked."""
        wanted = asked.filters()
        shown = [
            each
            for each in instances
            if each.lifecycle == "spot" and tags_fit(each, wanted) and each.id in self.marked
        ]
        items = "".join(
            "<item>"
            + element("spotInstanceRequestId", f"sir-{each.id[2:10]}")
            + element("instanceId", each.id)
            + "<status>"
            + element("code", "marked-for-termination")
            + element("updateTime", written(self.marked[each.id] - timedelta(seconds=120)))
            + "</status></item>"
            for each in shown
        )
        return answer(asked.action, f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>")

    def metadata(self, environ: dict[str, Any]) -> Answer:
        """What a machine's own metadata service says (IMDSv2) of its interruption."""
        _, _, name, path = environ["PATH_INFO"].split("/", 3)
        if path == "latest/api/token" and environ["REQUEST_METHOD"] == "PUT":
            return Answer(200, f"token-of-{name}".encode(), "text/plain")
        if environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != f"token-of-{name}":
            return Answer(401, b"", "text/plain")
        if path == "latest/meta-data/spot/instance-action" and name in self.marked:
            action = {"action": "terminate", "time": f"{self.marked[name]:%Y-%m-%dT%H:%M:%SZ}"}
            return Answer(200, json.dumps(action).encode(), "application/json")
        return Answer(404, b"", "text/plain")


def tags_fit(instance: Any, filters: Mapping[str, list[str]]) -> bool:
    """Whether an instance carries what `tag:` filters ask for."""
    tags = {each["key"]: each["value"] for each in instance.get_tags()}
    return all(
        tags.get(name.removeprefix("tag:")) in values
        for name, values in filters.items()
        if name.startswith("tag:")
    )


def written(at: datetime) -> str:
    """A time as EC2 writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
