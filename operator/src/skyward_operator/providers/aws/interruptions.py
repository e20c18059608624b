"""Spot machines that AWS will take back, as EC2 says it: the status of the request that bought them.

AWS warns two minutes before. Inside the machine the same is to be read from its metadata service.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from skyward_operator.providers.aws.side import OURS, TAG_OURS, tag_filters
from skyward_operator.providers.contract import Metadata, Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skyward_operator.providers.aws.clients import Clients

NOTICE_SECONDS = 120.0
MARKED = "marked-for-termination"
METADATA = Metadata(
    base="http://169.254.169.254",
    base_variable="AWS_EC2_METADATA_SERVICE_ENDPOINT",
    path="/latest/meta-data/spot/instance-action",
    time_field="time",
    token_path="/latest/api/token",  # noqa: S106 - a path
    token_header="X-aws-ec2-metadata-token",  # noqa: S106 - the name of a header
    token_headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
)
"""The machine's own view (IMDSv2), asked every five seconds as AWS advises; an on-demand one answers 404."""


async def interruptions(clients: Clients, region: str, tags: Mapping[str, str]) -> list[Notice]:
    """Those of one region with these tags."""
    requests = await clients.pages(
        "ec2",
        region,
        "describe_spot_instance_requests",
        "SpotInstanceRequests",
        Filters=[*tag_filters({TAG_OURS: OURS, **tags}), {"Name": "status-code", "Values": [MARKED]}],
    )
    return [notice(region, each) for each in requests if each.get("InstanceId")]


def notice(region: str, request: Mapping[str, Any]) -> Notice:
    """What a request that is marked says."""
    at = request["Status"]["UpdateTime"] + timedelta(seconds=NOTICE_SECONDS)
    return Notice(f"{region}/{request['InstanceId']}", at)
