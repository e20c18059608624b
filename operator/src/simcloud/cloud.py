"""What the cloud does for its customers: sell, show, end. Each call is one step, seen from outside.

Nothing here waits. What takes time (booting, ending, interrupting) is `conductor.py`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from simcloud import errors
from simcloud.accounts import BARE_LAG_SECONDS, Account
from simcloud.clock import Clock
from simcloud.faults import Faults
from simcloud.first_boot import first_boot
from simcloud.market import Market
from simcloud.scenario import Scenario
from simcloud.state import Condition, Instance, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from simcloud.ledger import Event, Ledger
    from simcloud.orders import Order
    from simcloud.scenario import Fault
    from simcloud.vms import Vms


class Cloud:
    """One cloud: its ledger, what follows from that, and its hardware."""

    def __init__(self, ledger: Ledger, vms: Vms) -> None:
        self.ledger = ledger
        self.vms = vms
        self.state = State()
        self.scenario = Scenario()
        self.scenario_began = 0.0
        self.prices_changed: set[int] = set()
        """Which of the scenario's price changes have happened."""
        for event in ledger.read():
            self._take_in(event)
        self.clock = Clock(self.state.shift)
        self.vms.set_clock(self.state.shift)
        self.faults = Faults(self.scenario)
        self.market = Market(self)
        self.changed = asyncio.Event()
        self.metadata_url = ""
        """Where machines ask about themselves; known once the service listens."""

    def record(self, kind: str, **fields: Any) -> None:
        """Have something happened, durably."""
        self._take_in(self.ledger.append(kind, self.clock.now(), **fields))
        if self.clock.shift != self.state.shift:
            self.clock.shift = self.state.shift
            self.vms.set_clock(self.state.shift)
        self.changed.set()

    def follow(self, scenario: Scenario) -> None:
        """Follow a script from now on; what machines were destined to stays."""
        skew = scenario.clock_skew_seconds - self.scenario.clock_skew_seconds
        self.record("scenario", scenario=scenario.model_dump(mode="json", exclude_defaults=True))
        self.faults = Faults(scenario)
        if skew:
            self.record("clock", seconds=skew)

    def create(self, account: Account, order: Order, effects: Sequence[Fault] = ()) -> Instance:
        """Sell a machine, or show the one that this client token has bought already."""
        bought = self.state.by_token.get((account.name, order.client_token))
        kinds = {fault.effect for fault in effects}
        if account.profile != "bare" and bought is not None and "duplicate" not in kinds:
            instance = self.state.instances[bought]
            if not order.is_of(instance):
                raise errors.token_mismatch(order.client_token)
            return instance
        key = self.side(account, "ssh-key", order.ssh_key)
        if order.security_group is not None:
            self.side(account, "security-group", order.security_group)
        hourly = self.market.admit(account, order, kinds)
        host, port = self.vms.address()
        boot = first_boot(order.user_data)
        private, public = boot.host_key() or self.vms.host_key()
        instance = Instance(
            id=f"sim-{secrets.token_hex(6)}",
            account=account.name,
            token=order.client_token,
            name=order.name,
            region=order.region,
            instance_type=order.instance_type,
            market=order.market,
            tags=order.tags,
            ssh_key=order.ssh_key,
            security_group=order.security_group,
            user_data=order.user_data,
            hourly=hourly,
            max_hourly=order.max_hourly,
            created=round(self.clock.now(), 3),
            host=host,
            port=port,
            metadata_key=secrets.token_urlsafe(16),
            host_key=public,
            power_off_ends=account.profile != "bare",
            fate=self.faults.of_machine(order.facts(account)),
        )
        metadata = f"{self.metadata_url}/{instance.metadata_key}"
        self.vms.prepare(instance, private, str(key["public_key"]), metadata, boot.commands)
        self.record("created", instance=instance.model_dump(mode="json", exclude_defaults=True))
        return self.state.instances[instance.id]

    def describe(self, account: Account, instance_id: str) -> Instance:
        """One machine; one that is gone is remembered for a while, one that vanished is not."""
        instance = self.state.instances.get(instance_id)
        if instance is None or instance.account != account.name or self._forgotten(instance):
            raise errors.not_found(f"instance {instance_id}")
        return instance

    def listing(
        self, account: Account, tags: Mapping[str, str], effects: Sequence[Fault] = ()
    ) -> tuple[list[tuple[Instance, Condition]], bool]:
        """Machines with these tags as they were a moment ago, and whether these are said to be all."""
        lag = BARE_LAG_SECONDS if account.profile == "bare" else 0.0
        lag = max([lag, *(fault.seconds for fault in effects if fault.effect == "lag")])
        then = self.clock.now() - lag
        seen: list[tuple[Instance, Condition]] = [
            (instance, condition)
            for instance in self.state.instances.values()
            if instance.account == account.name
            and instance.created <= then
            and tags.items() <= instance.tags.items()
            and (condition := instance.condition(then)) is not Condition.GONE
        ]
        cut = [fault for fault in effects if fault.effect in ("partial", "partial-in-silence")]
        for fault in cut:
            seen = seen[: int(len(seen) * (1 - fault.fraction))]
        return seen, all(fault.effect == "partial-in-silence" for fault in cut)

    def terminate(self, account: Account, instance_id: str) -> Instance:
        """Have a machine end; it may take a while, and is paid for until it is gone."""
        instance = self.describe(account, instance_id)
        if instance.stopping is None and instance.gone is None:
            self.record("stopping", id=instance.id, cause="terminated by its account")
        return instance

    def notices(self, account: Account, tags: Mapping[str, str]) -> list[Instance]:
        """Machines whose interruption was announced."""
        return [
            instance
            for instance in self.state.live(account.name)
            if instance.noticed is not None and tags.items() <= instance.tags.items()
        ]

    def side(self, account: Account, kind: str, resource_id: str) -> dict[str, Any]:
        """The content of a side resource of this account."""
        resource = self.state.side.get(resource_id)
        if resource is None or (resource.account, resource.kind) != (account.name, kind):
            raise errors.not_found(f"{kind} {resource_id}")
        return resource.content

    def _forgotten(self, instance: Instance) -> bool:
        if instance.gone is None:
            return False
        vanished = instance.cause == "vanished"
        return vanished or self.clock.now() - instance.gone > self.scenario.remember_seconds

    def _take_in(self, event: Event) -> None:
        if event["kind"] == "scenario":
            self.scenario = Scenario.model_validate(event["scenario"])
            self.scenario_began = event["time"]
            self.prices_changed.clear()
        elif event["kind"] == "priced":
            self.prices_changed.add(event["number"])
        self.state.apply(event)
