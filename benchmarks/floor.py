"""The floor under one call: create, watch, status write, watch with raw HTTP, plus one SSH round trip.

No Skyward code is on this path: one aiohttp session, one raw watch, and a byte that goes to an SSH server in
another process and back over a channel that stays open.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncssh

from benchmarks.figures import Latency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from skyward.local.endpoint import Endpoint

TASKS = "/apis/skyward.dev/v1alpha1/namespaces/default/tasks"
PAYLOAD = "c2t5d2FyZA==" * 50


def api_round_trips(endpoint: Endpoint, count: int) -> Latency:
    """Seconds from create to the watch event of the final status, one Task at a time."""
    return Latency(asyncio.run(_api_round_trips(endpoint, count)))


def ssh_round_trips(count: int) -> Latency:
    """Seconds for 100 bytes to an asyncssh server in another process and back, over an open channel."""
    return Latency(asyncio.run(_ssh_round_trips(count)))


async def _api_round_trips(endpoint: Endpoint, count: int) -> list[float]:
    tls = ssl.create_default_context(cafile=str(endpoint.ca_file))
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    run = uuid.uuid4().hex[:8]
    selector = f"skyward.dev/run=floor-{run}"
    async with (
        aiohttp.ClientSession(
            endpoint.server, headers=headers, connector=aiohttp.TCPConnector(ssl=tls)
        ) as http,
        http.get(f"{TASKS}?watch=true&labelSelector={selector}", timeout=aiohttp.ClientTimeout()) as watch,
    ):
        samples = []
        for number in range(count):
            name = f"floor-{run}-{number}"
            begin = time.perf_counter()
            await _create(http, name, f"floor-{run}")
            await _event(watch, name, "ADDED")
            await _finish(http, name)
            await _event(watch, name, "MODIFIED")
            samples.append(time.perf_counter() - begin)
            async with http.delete(f"{TASKS}/{name}") as answer:
                answer.raise_for_status()
            await _event(watch, name, "DELETED")
    return samples


async def _create(http: aiohttp.ClientSession, name: str, run: str) -> None:
    body = {
        "apiVersion": "skyward.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "labels": {"skyward.dev/run": run}},
        "spec": {
            "poolRef": {"name": "floor"},
            "suspend": True,
            "calls": {"python": "3.13", "count": 1, "package": PAYLOAD},
        },
    }
    async with http.post(TASKS, json=body) as answer:
        answer.raise_for_status()
        await answer.read()


async def _finish(http: aiohttp.ClientSession, name: str) -> None:
    body = {"status": {"phase": "Succeeded", "message": "x" * 150}}
    merge = {"Content-Type": "application/merge-patch+json"}
    async with http.patch(f"{TASKS}/{name}/status", data=json.dumps(body), headers=merge) as answer:
        answer.raise_for_status()
        await answer.read()


async def _event(watch: aiohttp.ClientResponse, name: str, kind: str) -> None:
    async for line in watch.content:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == kind and event["object"]["metadata"]["name"] == name:
            return


async def _ssh_round_trips(count: int) -> list[float]:
    samples: list[float] = []
    async with _echo_server() as port:
        connection = await asyncssh.connect(
            "127.0.0.1", port, username="floor", known_hosts=None, encryption_algs=["aes128-gcm@openssh.com"]
        )
        async with connection, await connection.create_process("echo", encoding=None) as channel:
            for _ in range(count):
                begin = time.perf_counter()
                channel.stdin.write(b"x" * 100)
                await channel.stdout.readexactly(100)
                samples.append(time.perf_counter() - begin)
    return samples


@asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo_server", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        yield int(await server.stdout.readline())
    finally:
        server.terminate()
        await server.wait()
