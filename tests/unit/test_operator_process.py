"""What surrounds the operator's work: flags and variables, log lines, health, and what it imports."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from skyward_operator.__main__ import parse
from skyward_operator.engine.clock import SystemClock
from skyward_operator.health import Health, PortTaken, Stage
from skyward_operator.logging import JsonFormatter, PlainFormatter, set_up
from skyward_operator.metrics import Metrics
from skyward_operator.settings import Address, Bucket, ServicePort, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_defaults_need_only_a_data_dir(tmp_path: Path) -> None:
    assert parse(["run", "--data-dir", str(tmp_path)], {}) == Settings(tmp_path)


def test_variables_are_defaults_of_flags(tmp_path: Path) -> None:
    environment = {
        "SKYWARD_DATA_DIR": str(tmp_path),
        "SKYWARD_NAMESPACE": "a, b",
        "SKYWARD_LOG_LEVEL": "debug",
        "SKYWARD_LARGEST_RESULT": "1000",
    }

    service = ["--gateway-service", "system/gateway:80"]
    settings = parse(["run", "--log-level", "ERROR", "--gateway-listen", "[::]:8080", *service], environment)

    assert settings.namespaces == ("a", "b")
    assert settings.namespace is None
    assert settings.log_level == "error"
    assert settings.largest_result == 1000
    assert settings.gateway_listen == Address("::", 8080)
    assert settings.gateway_service == ServicePort("system", "gateway", 80)
    assert settings.gateway_service.url == "http://gateway.system.svc:80"


@pytest.mark.parametrize(
    ("given", "bucket"),
    [
        (["disk"], None),
        (["s3://blobs"], Bucket("blobs")),
        (["s3://blobs/"], Bucket("blobs")),
        (["s3://blobs/a/b/"], Bucket("blobs", "a/b/")),
        (
            ["s3://blobs/a", "--s3-endpoint", "http://store:9000/", "--s3-region", "x"],
            Bucket("blobs", "a/", "http://store:9000", "x"),
        ),
    ],
)
def test_a_bucket_is_named_by_its_url(tmp_path: Path, given: list[str], bucket: Bucket | None) -> None:
    assert parse(["run", "--data-dir", str(tmp_path), "--blob-store", *given], {}).blob_store == bucket


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--data-dir"),
        (["--data-dir", "/dev/null"], "is no folder"),
        (["--data-dir", "/tmp", "--log-format", "xml"], "must be one of plain, json"),
        (["--data-dir", "/tmp", "--health-listen", "8080"], "must be HOST:PORT"),
        (["--data-dir", "/tmp", "--health-listen", "h:99999"], "port from 0 to 65535"),
        (["--data-dir", "/tmp", "--kubeconfig", "/no/such"], "no such file"),
        (["--data-dir", "/tmp", "--namespace", "Team A"], "lower-case letters"),
        (["--data-dir", "/tmp", "--holder", "a", "--predecessors", "b,a"], "the --holder itself"),
        (["--data-dir", "/tmp", "--largest-payload", "1 GB"], "a whole number of bytes"),
        (["--data-dir", "/tmp", "--largest-result", "0"], "at least 1"),
        (["--data-dir", "/tmp", "--lease-retry", "0"], "more than 0"),
        (["--data-dir", "/tmp", "--lease-retry", "soon"], "a number of seconds"),
        (["--data-dir", "/tmp", "--lease-deadline", "20"], "must grow in this order"),
        (["--data-dir", "/tmp", "--advertise-gateway-url", "gateway"], "must begin with http"),
        (["--data-dir", "/tmp", "--gateway-service", "skyward-gateway:http"], "NAMESPACE/NAME:PORT"),
        (["--data-dir", "/tmp", "--blob-store", "s3:bucket"], "must be disk, or s3://BUCKET"),
        (["--data-dir", "/tmp", "--blob-store", "s3://Bucket/x"], "must be disk, or s3://BUCKET"),
        (["--data-dir", "/tmp", "--blob-store", "s3://key:secret@bucket"], "must be disk, or s3://BUCKET"),
        (["--data-dir", "/tmp", "--s3-endpoint", "http://store"], "which is not given"),
        (["--data-dir", "/tmp", "--gateway-service", "system/gateway:99999"], "NAMESPACE/NAME:PORT"),
        (
            ["--data-dir", "/tmp", "--gateway-service", "a/b:1", "--advertise-gateway-url", "http://c"],
            "give one of them",
        ),
        (["--data-dir", "/tmp", "--gateway-service", "a/b:1"], "is 127.0.0.1:0: give it a port"),
        (
            ["--data-dir", "/tmp", "--gateway-service", "a/b:1", "--gateway-listen", "[::1]:80"],
            "an address that is not loopback",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_the_flag_and_what_is_allowed(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["run", *arguments], {})

    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert complaint in shown
    assert (arguments[-2] if len(arguments) > 1 else "--data-dir") in shown


def test_a_wrong_variable_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run"], {"SKYWARD_DATA_DIR": str(tmp_path), "SKYWARD_LEASE_DURATION": "long"})

    assert "SKYWARD_LEASE_DURATION" in capsys.readouterr().err


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_json_lines_carry_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    set_up("json", "info", stream=stream)
    logging.getLogger("skyward_operator.pools").info("launched %d", 2, extra={"object": "default/gpus"})
    logging.getLogger("kopf.objects").info("Handler succeeded")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 1
    assert {"level": "info", "message": "launched 2", "object": "default/gpus"}.items() <= lines[0].items()


def test_tracebacks_are_kept_in_both_formats() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())

    assert "ValueError: why" in PlainFormatter().format(record)
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]


async def test_a_standby_is_live_but_not_ready() -> None:
    async with Health(Address("127.0.0.1", 0), SystemClock(), Metrics()) as health:
        health.enter(Stage.STANDBY)
        assert await _ask(health, "/livez") == (200, "ok; standby\n")
        assert await _ask(health, "/readyz") == (503, "standby\n")


async def test_ready_needs_the_lease() -> None:
    leads = True
    async with Health(Address("127.0.0.1", 0), SystemClock(), Metrics()) as health:
        health.observe(watch_age=lambda: 1.0, is_leader=lambda: leads)
        health.enter(Stage.READY)
        assert (await _ask(health, "/readyz"))[0] == 200
        leads = False
        assert await _ask(health, "/readyz") == (503, "the lease is not safely held\n")


async def test_not_ready_says_why() -> None:
    async with Health(Address("127.0.0.1", 0), SystemClock(), Metrics()) as health:
        health.enter(Stage.AWAITING_SCHEMA, "the CRD tasks.skyward.dev is missing")
        assert await _ask(health, "/readyz") == (
            503,
            "awaiting schema: the CRD tasks.skyward.dev is missing\n",
        )


async def test_a_silent_watch_is_not_live() -> None:
    async with Health(Address("127.0.0.1", 0), SystemClock(), Metrics()) as health:
        health.observe(watch_age=lambda: 500.0, is_leader=lambda: True)
        assert await _ask(health, "/livez") == (503, "a watch has been silent for 500 s\n")


async def test_a_taken_port_names_the_flag() -> None:
    async with Health(Address("127.0.0.1", 0), SystemClock(), Metrics()) as health:
        port = int(health.url.rsplit(":", 1)[1])
        with pytest.raises(PortTaken, match="--health-listen"):
            async with Health(Address("127.0.0.1", port), SystemClock(), Metrics()):
                pass


def test_the_process_loads_neither_kubernetes_nor_anything_that_unpickles(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{}")
    program = f"""
import sys
from skyward_operator.__main__ import main
try:
    main(["run", "--data-dir", {str(tmp_path)!r}, "--kubeconfig", {str(tmp_path / "config")!r}])
except SystemExit as ended:
    assert ended.code == 1
loaded = {{name for name in ("kubernetes", "cloudpickle", "skyward.wire.codec") if sys.modules.get(name)}}
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "choose one with --context" in done.stderr


async def _ask(health: Health, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(health.url + path) as response:
        return response.status, await response.text()
