"""The floor under one call: create, watch, an SSH round trip, status write, watch, with nothing around them.

No Skyward code is on this path: one aiohttp session, one raw watch, and 100 bytes that go to an SSH server in
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from skyward.local.endpoint import Endpoint

TASKS = "/apis/skyward.dev/v1alpha1/namespaces/default/tasks"
MERGE = {"Content-Type": "application/merge-patch+json"}
PAYLOAD = "c2t5d2FyZA==" * 50


def round_trips(endpoint: Endpoint, count: int) -> list[float]:
    """Seconds from create to the watch event of the final status, one Task at a time."""
    return asyncio.run(_round_trips(endpoint, count))


def ssh_trips(count: int) -> list[float]:
    """Seconds of 100 bytes to an SSH server and back, one after the other."""
    return asyncio.run(_ssh_trips(count))


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """An SSH server in another process; its port."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo_server", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        yield int(await server.stdout.readline())
    finally:
        server.terminate()
        await server.wait()


async def _round_trips(endpoint: Endpoint, count: int) -> list[float]:
    run = f"floor-{uuid.uuid4().hex[:8]}"
    selector = {"watch": "true", "labelSelector": f"skyward.dev/run={run}"}
    async with (
        _session(endpoint) as http,
        http.get(TASKS, params=selector, timeout=aiohttp.ClientTimeout()) as watch,
        echo_server() as port,
        asyncssh.connect(
            "127.0.0.1", port, known_hosts=None, encryption_algs=["aes128-gcm@openssh.com"]
        ) as connection,
        await connection.create_process("echo", encoding=None) as channel,
    ):
        samples = []
        for number in range(count):
            name = f"{run}-{number}"
            begin = time.perf_counter()
            await _send(http.post(TASKS, json=_task(name, run)))
            await _event(watch, name, "ADDED")
            channel.stdin.write(b"x" * 100)
            await channel.stdout.readexactly(100)
            await _send(http.patch(f"{TASKS}/{name}/status", data=FINISHED, headers=MERGE))
            await _event(watch, name, "MODIFIED")
            samples.append(time.perf_counter() - begin)
            await _send(http.delete(f"{TASKS}/{name}"))
            await _event(watch, name, "DELETED")
    return samples


async def _ssh_trips(count: int) -> list[float]:
    samples = []
    async with (
        echo_server() as port,
        asyncssh.connect(
            "127.0.0.1", port, known_hosts=None, encryption_algs=["aes128-gcm@openssh.com"]
        ) as connection,
        await connection.create_process("echo", encoding=None) as channel,
    ):
        for _ in range(count):
            begin = time.perf_counter()
            channel.stdin.write(b"x" * 100)
            await channel.stdout.readexactly(100)
            samples.append(time.perf_counter() - begin)
    return samples


def _session(endpoint: Endpoint) -> aiohttp.ClientSession:
    tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(endpoint.ca_file)))
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    return aiohttp.ClientSession(endpoint.server, headers=headers, connector=tls)


FINISHED = json.dumps({"status": {"phase": "Succeeded", "message": "x" * 150}})


def _task(name: str, run: str) -> dict[str, Any]:
    """A Task that no operator touches."""
    return {
        "apiVersion": "skyward.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "labels": {"skyward.dev/run": run}},
        "spec": {
            "poolRef": {"name": "floor"},
            "managedBy": "skyward.dev/floor",
            "calls": {"python": "3.13", "count": 1, "package": PAYLOAD},
        },
    }


async def _send(request: Any) -> None:
    async with request as answer:
        answer.raise_for_status()
        await answer.read()


async def _event(watch: aiohttp.ClientResponse, name: str, kind: str) -> None:
    async for line in watch.content:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == kind and event["object"]["metadata"]["name"] == name:
            return
