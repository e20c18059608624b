"""A real S3 server for tests: VersityGW on a folder, built once per machine from the Go module proxy.

The build takes a minute and a half on two cores, beside the control plane's; the binary stays in the cache of
binaries, under its version. `s3server/go.mod` pins it with everything that it is made of.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyward.local.build import fetch_go, installed_go
from skyward.local.home import cache_root, make_folder
from skyward.local.locks import only_one
from skyward.local.ports import free_ports
from skyward.local.progress import silent
from skyward_operator.settings import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "v1.8.0"
MODULE = Path(__file__).with_name("s3server")
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"


def ensure_s3_server() -> Path:
    """The server's binary. Fails, and never skips, when it cannot be had."""
    folder = cache_root() / "s3server" / VERSION
    binary = folder / "versitygw"
    if binary.exists():
        return binary
    make_folder(folder, variable="SKYWARD_CACHE")
    with only_one(folder / "fill.lock", silent, "waiting for another process that builds the S3 server"):
        if not binary.exists():
            print(f"install: VersityGW {VERSION}, a real S3 server for the tests (built with Go)", flush=True)
            _build(binary)
    return binary


def _build(binary: Path) -> None:
    go = installed_go() or fetch_go(binary.parent / ".go", silent)
    environment = {
        **os.environ,
        **go.environment,
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    fresh = binary.with_name("versitygw.new")
    with tempfile.TemporaryDirectory(prefix="sky-s3-") as folder:
        for name in ("go.mod", "go.sum"):
            shutil.copy(MODULE / name, folder)
        command = [go.command, "build", "-trimpath", "-ldflags=-s -w", "-o", str(fresh), PACKAGE]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, f"the S3 server cannot be built with {go.source}: {done.stderr[-2000:]}"
    fresh.replace(binary)
    subprocess.run(["chmod", "-R", "u+w", str(binary.parent / ".go")], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(binary.parent / ".go", ignore_errors=True)


@dataclass(slots=True)
class S3Server:
    """One server, and a bucket in it."""

    folder: Path
    port: int
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The credentials, as the usual chain finds them."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def bucket(self, prefix: str = "skyward/") -> Bucket:
        """The bucket as the operator's settings name it."""
        return Bucket("blobs", prefix, self.endpoint)

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self.folder / "data" / "blobs").mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "ROOT_ACCESS_KEY": self.key, "ROOT_SECRET_KEY": self.secret}
        with (self.folder / "s3.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(str(ensure_s3_server()), "--port", f"127.0.0.1:{self.port}", "--keep-alive", "posix"),
                    *("--sidecar", str(self.folder / "sidecar"), str(self.folder / "data")),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self.process.poll() is None, (self.folder / "s3.log").read_text()
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def objects(self) -> dict[str, int]:
        """Key and size of everything in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="blobs")
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither finished nor aborted."""
        found = self.client().list_multipart_uploads(Bucket="blobs")
        return [each["Key"] for each in found.get("Uploads", ())]

    def client(self) -> Any:
        """An S3 client of the test's own."""
        import boto3

        session = boto3.session.Session(self.key, self.secret, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with an empty bucket; it ends with the block."""
    (folder / "sidecar").mkdir(parents=True)
    server = S3Server(folder, free_ports(1)[0])
    server.start()
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    ensure_s3_server()
