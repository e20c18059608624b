"""The command line: `skyward-operator run`, with flags that default to SKYWARD_* variables."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from skyward_operator import __version__
from skyward_operator.settings import (
    LEAST_OUTPUT_BYTES,
    LOG_FORMATS,
    LOG_LEVELS,
    Address,
    Bucket,
    LeaseTimes,
    ServicePort,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_BUCKET: Final = re.compile(r"s3://([a-z0-9][-.a-z0-9]{1,61}[a-z0-9])(?:/([-\w.!/]*))?")
_SERVICE: Final = re.compile(f"({_LABEL})/({_LABEL}):([0-9]{{1,5}})")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the operator until SIGTERM or SIGINT; 0 after a graceful stop, 2 for wrong values, 3 when the
    lease was lost."""
    settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    # kopf loads the kubernetes package where it is installed: 0.4 s and 20 MiB that nothing here needs.
    sys.modules["kubernetes"] = None  # type: ignore[assignment]
    from skyward_operator.main import start

    sys.exit(start(settings))


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings, from flags and else from SKYWARD_* variables; exits with 2 on a value that is wrong."""
    parser = _parser(environment)
    given = parser.parse_args(arguments)
    times = LeaseTimes(given.lease_duration, given.lease_deadline, given.lease_retry)
    if not 0 < times.retry < times.deadline < times.duration:
        parser.error(
            "--lease-retry, --lease-deadline and --lease-duration must grow in this order "
            f"(given: {times.retry:g}, {times.deadline:g}, {times.duration:g})"
        )
    if given.holder in given.predecessors:
        parser.error("--predecessors names the --holder itself")
    if given.gateway_service and given.advertise_gateway_url:
        parser.error(
            "--advertise-gateway-url is where all clients go, --gateway-service is for an address that only "
            "pods reach: give one of them"
        )
    if given.gateway_service and not _is_reachable(given.gateway_listen):
        parser.error(
            f"--gateway-service needs a gateway that pods can reach, and --gateway-listen is "
            f"{given.gateway_listen}: give it a port, and an address that is not loopback (:8080)"
        )
    return Settings(
        data_dir=given.data_dir,
        kubeconfig=given.kubeconfig,
        context=given.context,
        namespaces=given.namespace,
        gateway_listen=given.gateway_listen,
        health_listen=given.health_listen,
        largest_payload=given.largest_payload,
        largest_result=given.largest_result,
        task_output_bytes=given.task_output_bytes,
        output_bytes=given.output_bytes,
        output_days=given.output_days,
        advertise_gateway_url=given.advertise_gateway_url,
        gateway_service=given.gateway_service,
        blob_store=_bucket(parser, given),
        log_format=given.log_format,
        log_level=given.log_level,
        providers=given.providers,
        identity=given.identity,
        holder=given.holder,
        predecessors=given.predecessors,
        lease_name=given.lease_name,
        lease_namespace=given.lease_namespace,
        sweep_seconds=given.sweep_seconds,
        sweep_margin_seconds=given.sweep_margin_seconds,
        lease_times=times,
        resync_seconds=given.resync_seconds,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="skyward-operator", description="Looks after ComputePools, ComputeNodes and Tasks."
    )
    parser.add_argument("--version", action="version", version=f"skyward-operator {__version__}")
    run = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser(
        "run", help="run the operator", description=_RUN, formatter_class=argparse.RawTextHelpFormatter
    )
    flags = _Flags(run, environment)
    defaults = Settings(Path())
    flags.add("data-dir", _data_dir, None, "folder for blobs, logs and the local provider's machines", "DIR")
    flags.add("kubeconfig", _file, "", "kubeconfig file (default: the pod's service account,\n"
              "$KUBECONFIG, ~/.kube/config)", "FILE")  # fmt: skip
    flags.add("context", _text, "", "context of the kubeconfig (default: its current one)", "NAME")
    flags.add("namespace", _names, "", "namespaces to look after, by comma (default: all)", "NAMES")
    flags.add("gateway-listen", _address, "127.0.0.1:0", "where the gateway listens; port 0 takes a free one",
              "HOST:PORT")  # fmt: skip
    flags.add("health-listen", _address, "127.0.0.1:0", "where /livez, /readyz and /metrics are", "HOST:PORT")
    flags.add("advertise-gateway-url", _url, "", "how clients reach the gateway (default: as it listens)",
              "URL")  # fmt: skip
    flags.add("gateway-service", _service, "", "the Service before the gateway: clients outside of the\n"
              "cluster reach it through the API server", "NAMESPACE/NAME:PORT")  # fmt: skip
    flags.add("largest-payload", _bytes, f"{defaults.largest_payload}", "bytes that a task's calls may take",
              "BYTES")  # fmt: skip
    flags.add(
        "largest-result", _bytes, f"{defaults.largest_result}", "bytes that one call may return", "BYTES"
    )
    flags.add("task-output-bytes", _output_bytes, f"{defaults.task_output_bytes}",
              "output of one task that is kept", "BYTES")  # fmt: skip
    flags.add("output-bytes", _output_bytes, f"{defaults.output_bytes}",
              "output that is kept in all:\nwhat has ended first goes first", "BYTES")  # fmt: skip
    flags.add(
        "output-days", _days, f"{defaults.output_days:g}", "how long output is kept after the end", "DAYS"
    )
    flags.add("blob-store", _store, "disk", "where complete payloads and results are kept: disk, or\n"
              "s3://BUCKET/PREFIX (credentials: the usual chain of AWS)", "STORE")  # fmt: skip
    flags.add("s3-endpoint", _url, "", "the S3 API of --blob-store (default: AWS)", "URL")
    flags.add("s3-region", _text, "", "its region (default: as AWS_REGION and ~/.aws say)", "NAME")
    flags.add("log-format", _one_of(LOG_FORMATS), "plain", "plain or json", "FORMAT")
    flags.add("log-level", _one_of(LOG_LEVELS), "info", "debug, info, warning or error", "LEVEL")
    flags.add("providers", _names, "", "providers to enable, by comma (default: all installed)", "NAMES")
    flags.add("identity", _text, "", "name in the lease (default: the host's name)", "NAME")
    flags.add("holder", _text, "", "the lease's holder, word for word: never given to two processes", "NAME")
    flags.add("predecessors", _names, "", "holders whose processes are known to have ended, by comma:\n"
              "they are not waited for", "NAMES")  # fmt: skip
    flags.add("lease-name", _required, defaults.lease_name, "name of the Lease that elects", "NAME")
    flags.add("lease-namespace", _required, defaults.lease_namespace, "namespace of that Lease", "NAME")
    times = LeaseTimes()
    flags.add("lease-duration", _seconds, f"{times.duration:g}", "how long a lease holds", "SECONDS")
    flags.add("lease-deadline", _seconds, f"{times.deadline:g}", "how long a renewal lets act", "SECONDS")
    flags.add("lease-retry", _seconds, f"{times.retry:g}", "how often it is renewed", "SECONDS")
    flags.add("resync-seconds", _seconds, "300", "how often everything is listed and compared", "SECONDS")
    flags.add("sweep-seconds", _seconds, f"{defaults.sweep_seconds:g}",
              "how often providers are looked through for\nmachines of no node", "SECONDS")  # fmt: skip
    flags.add("sweep-margin-seconds", _seconds, f"{defaults.sweep_margin_seconds:g}",
              "how long such a machine is watched before it is ended", "SECONDS")  # fmt: skip
    return parser


_RUN: Final = "Runs until SIGTERM or SIGINT. Each flag can be given as an environment variable as well."


class _Flags:
    """Adds flags whose defaults come from the environment and are checked like flags."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._parser = parser
        self._environment = environment

    def add(
        self, name: str, convert: Callable[[str], object], default: str | None, text: str, metavar: str
    ) -> None:
        """A flag --name, or SKYWARD_NAME; `default` None makes one of the two necessary."""
        variable = "SKYWARD_" + name.upper().replace("-", "_")
        given = self._environment.get(variable) or default
        shown = f" (default: {default})" if default else ""
        self._parser.add_argument(
            f"--{name}",
            type=_named(convert, f"{variable} or --{name}"),
            default=given,
            required=given is None,
            metavar=metavar,
            help=f"{text}{shown}\n[${variable}]".replace("%", "%%"),
        )


def _named(convert: Callable[[str], object], name: str) -> Callable[[str], object]:
    def check(value: str) -> object:
        try:
            return convert(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{value!r} given by {name}: {error}") from None

    return check


def _text(value: str) -> str | None:
    return value or None


def _required(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _names(value: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    for name in names:
        if not all(letter.isalnum() or letter in "-." for letter in name) or name != name.lower():
            raise ValueError(f"{name!r} is no name; lower-case letters, digits and - are allowed, by comma")
    return names


def _file(value: str) -> Path | None:
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        raise ValueError("no such file")
    return path


def _data_dir(value: str) -> Path:
    path = Path(value).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ValueError("is no folder")
    return path


def _address(value: str) -> Address:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT with a port from 0 to 65535")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - only where asked for as ":PORT"


def _url(value: str) -> str | None:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/") or None


def _service(value: str) -> ServicePort | None:
    if not value:
        return None
    match = _SERVICE.fullmatch(value)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ValueError("must be NAMESPACE/NAME:PORT with the number of a port")
    return ServicePort(match[1], match[2], int(match[3]))


def _is_reachable(address: Address) -> bool:
    is_loopback = address.host in ("localhost", "::1") or address.host.startswith("127.")
    return address.port != 0 and not is_loopback


def _store(value: str) -> Bucket | None:
    if value == "disk":
        return None
    match = _BUCKET.fullmatch(value)
    if match is None:
        raise ValueError("must be disk, or s3://BUCKET or s3://BUCKET/PREFIX")
    prefix = (match[2] or "").strip("/")
    return Bucket(match[1], f"{prefix}/" if prefix else "")


def _bucket(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Bucket | None:
    bucket: Bucket | None = given.blob_store
    if bucket is not None:
        return replace(bucket, endpoint=given.s3_endpoint, region=given.s3_region)
    if given.s3_endpoint or given.s3_region:
        parser.error("--s3-endpoint and --s3-region are for --blob-store s3://…, which is not given")
    return None


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return check


def _bytes(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError("must be a whole number of bytes, at least 1")
    return int(value)


def _output_bytes(value: str) -> int:
    if not value.isdecimal() or int(value) < LEAST_OUTPUT_BYTES:
        raise ValueError(f"must be a whole number of bytes, at least {LEAST_OUTPUT_BYTES}")
    return int(value)


def _days(value: str) -> float:
    try:
        days = float(value)
    except ValueError:
        raise ValueError("must be a number of days") from None
    if not 0 < days <= 36_500:
        raise ValueError("must be more than 0 and at most 36500 days")
    return days


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if not 0 < seconds <= 86_400:
        raise ValueError("must be more than 0 and at most 86400 seconds")
    return seconds


if __name__ == "__main__":
    main()
