"""EC2 for tests: moto, and before it what moto lacks.

moto keeps the objects and answers most requests. Here are those that it ignores or has not: client tokens,
errors by script, access keys and their permissions, SSM's public parameters, prices, spot requests with their
interruptions, consoles, and that a security group in use stays. Machines are in `guests`.
"""

from __future__ import annotations

import base64
import io
import re
import socket
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import InstanceState, StateReason
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from tests.aws_double import asked as asked_
from tests.aws_double.answers import Answer, Refused, answer, document, element, refusal
from tests.aws_double.faults import Script
from tests.aws_double.guests import Guest, Guests
from tests.aws_double.interruptions import Interruptions, written
from tests.aws_double.prices import PriceList
from werkzeug.test import run_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from tests.aws_double.asked import Asked

PARAMETERS = {"canonical/ubuntu": "ami-785db401", "deeplearning": "ami-9b32e8e2"}
DENIED = (
    "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/{key} is not "
    "authorized to perform: {permission} on resource: * because no identity-based policy allows the "
    "{permission} action. Encoded authorization failure message: c2VjcmV0"
)
INSTANCE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
LOOK_SECONDS = 0.2


class Cloud:
    """The whole of it, as a WSGI application."""

    def __init__(self, folder: Path, *, on_paper: bool = False) -> None:
        self.guests = Guests(folder, on_paper=on_paper)
        self.script = Script()
        self.prices = PriceList()
        self.keys: dict[str, frozenset[str] | None] = {}
        """Access keys, and what they may do; None: everything."""
        self.calls: Counter[str] = Counter()
        self.endpoint = ""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._tokens: dict[tuple[str, str, str], tuple[str, Answer, str]] = {}
        self._buying = threading.Lock()
        self.interruptions = Interruptions()
        self._bill: dict[str, dict[str, Any]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith("/moto-api"):
            return self._moto(environ, start_response)  # type: ignore[no-any-return]
        if environ["PATH_INFO"].startswith("/imds/"):
            given = self.interruptions.metadata(environ)
        else:
            asked = asked_.read(environ)
            given = Answer(403, b"nobody signed this") if asked is None else self._answer(asked, environ)
        headers = [("Content-Type", given.kind), ("Content-Length", str(len(given.body)))]
        start_response(f"{given.status} told", headers)
        return [given.body]

    def _answer(self, asked: Asked, environ: dict[str, Any]) -> Answer:
        self.calls[asked.permission] += 1
        try:
            self._admit(asked)
            fault = self.script.draw(asked)
            if fault is not None and fault.code:
                raise Refused(fault.code, fault.message, fault.status)
            if fault is not None and fault.effect == "cut":
                hang_up(environ)
                return Answer(500, b"")
            if fault is not None and fault.effect == "page":
                environ = with_form(environ, {**asked.form, "MaxResults": "2"})
            given = self._own(asked, environ) or self._ask_moto(environ)
            if fault is not None and fault.effect == "lose":
                hang_up(environ)
        except Refused as error:
            return refusal(asked, error)
        return given

    def _admit(self, asked: Asked) -> None:
        if asked.key not in self.keys:
            if asked.service != "ec2":
                raise Refused("UnrecognizedClientException", "The security token is invalid.")
            raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        allowed = self.keys[asked.key]
        if allowed is not None and asked.permission not in allowed:
            code = "UnauthorizedOperation" if asked.service == "ec2" else "AccessDeniedException"
            raise Refused(code, DENIED.format(key=asked.key, permission=asked.permission), 403)

    def _own(self, asked: Asked, environ: dict[str, Any]) -> Answer | None:
        """The answer to what moto does not know, or not well enough."""
        match asked.action:
            case "GetProducts":
                return self.prices.products(asked)
            case "GetParameter":
                return parameter(asked)
            case "DescribeSpotPriceHistory":
                zones = [f"{asked.region}{letter}" for letter in "abcdef"]
                return self.prices.spot_history(asked, zones)
            case "DescribeSpotInstanceRequests":
                return self.interruptions.requests(asked, self._instances(asked.region))
            case "GetConsoleOutput":
                return self._console(asked)
            case "RunInstances":
                return self._run(asked, environ)
            case "TerminateInstances":
                for name in asked.members("InstanceId"):
                    self._end(asked.region, name, "Client.UserInitiatedShutdown")
            case "DescribeInstances" if "client-token" in asked.filters():
                return self._by_token(asked, environ)
            case "DeleteSecurityGroup":
                group = asked.form["GroupId"]
                if any(group in groups_of(each) for each in self._instances(asked.region)):
                    raise Refused("DependencyViolation", f"resource {group} has a dependent object")
        return None

    def _ask_moto(self, environ: dict[str, Any]) -> Answer:
        body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        content = b"".join(body)
        return Answer(int(status.split()[0]), content, headers.get("Content-Type", "text/xml"))

    # buying

    def _run(self, asked: Asked, environ: dict[str, Any]) -> Answer:
        token = asked.form["ClientToken"]
        subnet = asked.form.get("NetworkInterface.1.SubnetId") or asked.form.get("SubnetId", "")
        key = (asked.region, subnet, token)
        same = repr(sorted(asked.form.items()))
        self._mind_the_price(asked)
        with self._buying:
            if key in self._tokens:
                before, given, instance = self._tokens[key]
                if before != same:
                    raise Refused(
                        "IdempotentParameterMismatch", "Arguments on this idempotent request differ"
                    )
                if backend(asked.region).get_instance(instance).state == "terminated":
                    text = "The instance that this client token launched is terminated"
                    raise Refused("IdempotentInstanceTerminated", text)
                return given
            given = self._ask_moto(environ)
            found = INSTANCE.search(given.body)
            if found is not None:
                instance = found.group(1).decode()
                self._tokens[key] = (same, given, instance)
                self._bought(asked, instance)
            return given

    def _mind_the_price(self, asked: Asked) -> None:
        cap = asked.form.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        price = self.prices.hourly(asked.form["InstanceType"], "spot")
        if cap is not None and Decimal(cap) < price:
            text = f"Your Spot request price of {cap} is lower than the minimum required price of {price}."
            raise Refused("SpotMaxPriceTooLow", text)

    def _bought(self, asked: Asked, name: str) -> None:
        """An instance gets its machine, where the machine really listens."""
        instance = backend(asked.region).get_instance(name)
        host, port = self.guests.address()
        spot = asked.form.get("InstanceMarketOptions.MarketType") == "spot"
        instance._state = InstanceState("pending", 0)
        instance.nics[0].public_ip = host
        (pair,) = backend(asked.region).describe_key_pairs(key_names=[asked.form["KeyName"]])
        guest = Guest(
            id=name,
            token=asked.form["ClientToken"],
            name=name,
            tags={},
            created=time.time(),
            host=host,
            port=port,
            ssh_public_key=pair.public_key,
            user_data=base64.b64decode(asked.form.get("UserData", "")),
        )
        hourly = self.prices.hourly(asked.form["InstanceType"], "spot" if spot else "on-demand")
        self._bill[name] = {"began": time.time(), "ended": None, "hourly": hourly}
        watch = threading.Thread(target=self._live, args=(asked.region, guest), daemon=True)
        watch.start()

    def _live(self, region: str, guest: Guest) -> None:
        """The life of one machine: boot, run, and end."""
        instance = backend(region).get_instance(guest.id)
        self.guests.boot(guest, f"{self.endpoint}/imds/{guest.id}")
        if not guest.ended.is_set():
            instance._state = InstanceState("running", 16)
        while not guest.ended.wait(LOOK_SECONDS):
            if self.interruptions.is_due(guest.id):
                self._end(region, guest.id, "Server.SpotInstanceTermination")
            elif self.guests.powered_off(guest):
                assert instance.instance_initiated_shutdown_behavior == "terminate"
                self._end(region, guest.id, "Client.InstanceInitiatedShutdown")

    def _end(self, region: str, name: str, why: str) -> None:
        if name not in self.guests.all or self._bill[name]["ended"] is not None:
            return
        instance = backend(region).get_instance(name)
        instance._state = InstanceState("shutting-down", 32)
        self._bill[name]["ended"] = time.time()
        self.guests.end(self.guests.all[name])
        instance.terminate()
        instance.state_reason = StateReason(f"{why}: {why}", why)

    # looking

    def _by_token(self, asked: Asked, environ: dict[str, Any]) -> Answer:
        """moto has no filter of that name: the instances' ids are put in its place."""
        (token,) = asked.filters()["client-token"]
        names = [each.id for each in backend(asked.region).all_instances() if each.client_token == token]
        form = {"Action": asked.action, "Version": asked.form["Version"]}
        form |= {"Filter.1.Name": "instance-id", "Filter.1.Value.1": names[0] if names else "i-none"}
        return self._ask_moto(with_form(environ, form))

    def _console(self, asked: Asked) -> Answer:
        name = asked.form["InstanceId"]
        guest = self.guests.all.get(name)
        if guest is None:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{name}' does not exist")
        said = base64.b64encode(self.guests.console(guest).encode()).decode()
        inside = element("instanceId", name) + element("timestamp", written(datetime.now(UTC)))
        return answer(asked.action, inside + element("output", said))

    def _instances(self, region: str) -> list[Any]:
        return [each for each in backend(region).all_instances() if each.state != "terminated"]

    # what tests and people ask

    def audit(self) -> dict[str, Any]:
        """What was bought, what is left, and what it costs."""
        regions = list(ec2_backends[DEFAULT_ACCOUNT_ID].values())
        amount = Decimal(0)
        for each in self._bill.values():
            seconds = Decimal(str((each["ended"] or time.time()) - each["began"]))
            amount += each["hourly"] * max(Decimal(60), seconds) / 3600
        return {
            "bought": len(self._bill),
            "alive": [name for name, each in self._bill.items() if each["ended"] is None],
            "key_pairs": [name for region in regions for name in region.key_pairs],
            "groups": [
                group.name
                for region in regions
                for groups in region.groups.values()
                for group in groups.values()
                if group.name != "default"
            ],
            "amount": f"{amount:.6f}",
        }

    def reset(self) -> None:
        """A fresh account: no machine, nothing bought, nothing wrong."""
        self.close()
        moto_api_backend.reset()
        self.script.replace([])
        for kept in (self._tokens, self.interruptions.marked, self._bill, self.guests.all, self.prices.moved):
            kept.clear()

    def close(self) -> None:
        """End every machine."""
        for guest in list(self.guests.all.values()):
            self.guests.end(guest)


def backend(region: str) -> Any:
    """moto's objects of a region."""
    return ec2_backends[DEFAULT_ACCOUNT_ID][region]


def groups_of(instance: Any) -> set[str]:
    """The security groups of an instance."""
    return {group.id for nic in instance.nics.values() for group in nic.group_set}


def parameter(asked: Asked) -> Answer:
    """SSM's public parameters for images."""
    name = asked.document["Name"]
    for part, image in PARAMETERS.items():
        if part in name:
            return document({"Parameter": {"Name": name, "Type": "String", "Value": image, "Version": 1}})
    raise Refused("ParameterNotFound", f"Parameter {name} not found.")


def with_form(environ: dict[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """The same request with other parameters."""
    body = urlencode(form).encode()
    return {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


def hang_up(environ: dict[str, Any]) -> None:
    """Cut the connection."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
