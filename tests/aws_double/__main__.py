"""`python -m tests.aws_double --data FOLDER`: the double as a service, until SIGTERM.

The first line of output says where, as JSON. `/double/…` on the same port is for whoever runs it:

    PUT  /double/faults      what goes wrong, as `faults` reads it
    PUT  /double/keys        access keys, each with its permissions or null for all
    PUT  /double/spot        spot prices by instance type
    POST /double/interrupt   {"instance", "seconds"}
    POST /double/reset       a fresh account
    GET  /double/audit       what was bought, what is left, what it costs
    GET  /double/calls       how often each action was called
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ |= {  # as strict as moto can be; it looks when it is imported
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}

from moto.moto_server.werkzeug_app import MotoRequestHandler
from tests.aws_double.cloud import Cloud
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Handler(MotoRequestHandler):
    """Says nothing about each request."""

    def log_request(self, *_: Any) -> None:
        """Nothing."""


class Desk:
    """The double with the requests of whoever runs it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith("/double/"):
            return self._cloud(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        answer = json.dumps(self._do(path.removeprefix("/double/"), json.loads(body or b"null"))).encode()
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]

    def _do(self, what: str, given: Any) -> Any:
        cloud = self._cloud
        match what:
            case "faults":
                cloud.script.replace(given)
            case "keys":
                cloud.keys = {key: None if may is None else frozenset(may) for key, may in given.items()}
            case "spot":
                cloud.prices.moved = {name: Decimal(price) for name, price in given.items()}
            case "interrupt":
                cloud.interruptions.mark(given["instance"], given["seconds"])
            case "reset":
                cloud.reset()
            case "audit":
                return cloud.audit()
            case "calls":
                return dict(cloud.calls)
            case _:
                raise KeyError(what)
        return None


def main() -> None:
    """Serve until SIGINT or SIGTERM; no machine is left afterwards."""
    parser = argparse.ArgumentParser(prog="aws_double")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--on-paper", action="store_true")
    given = parser.parse_args()
    cloud = Cloud(given.data, on_paper=given.on_paper)
    server = make_server("127.0.0.1", 0, Desk(cloud), threaded=True, request_handler=Handler)
    cloud.endpoint = f"http://127.0.0.1:{server.server_port}"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(json.dumps({"endpoint": cloud.endpoint}), flush=True)
    server.serve_forever()
    cloud.close()


if __name__ == "__main__":
    main()
