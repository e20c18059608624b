"""What happens in the cloud by itself as time goes by: machines boot, end, are interrupted; prices change.

What is due is decided from the instance and the time alone (`due`), so a cloud that was killed goes on where
it was. Hardware is switched in threads, one switch at a time for each machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from simcloud.state import Condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from simcloud.cloud import Cloud
    from simcloud.state import Instance

logger = logging.getLogger(__name__)

BOOT_POLL = 0.05
IDLE_POLL = 0.5
"""Seconds until it is noticed that a machine was switched off from inside."""
SWITCH_AGAIN = 1.0


class Step(StrEnum):
    """What is due for an instance."""

    WAIT = "wait"
    POWER_ON = "power on"
    COME_UP = "come up"
    NOTICE = "notice"
    INTERRUPT = "interrupt"
    VANISH = "vanish"
    HANG = "hang"
    END = "end"


def due(instance: Instance, now: float, *, powered: bool) -> Step:
    """The next step for an instance that exists."""
    fate, age = instance.fate, now - instance.created
    if instance.stopping is not None:
        return Step.END if now >= instance.stopping + fate.terminate_seconds else Step.WAIT
    if fate.vanish_seconds is not None and age >= fate.vanish_seconds:
        return Step.VANISH
    if instance.interrupted_at is not None and now >= instance.interrupted_at:
        return Step.INTERRUPT
    if fate.preempt_seconds is not None and instance.noticed is None:
        if age >= fate.preempt_seconds:
            return Step.INTERRUPT
        if fate.notice_seconds and age >= fate.preempt_seconds - fate.notice_seconds:
            return Step.NOTICE
    if fate.hang_seconds is not None and not instance.hung and age >= fate.hang_seconds:
        return Step.HANG
    if fate.boot_seconds is None or instance.hung:
        return Step.WAIT
    if not powered and age >= fate.boot_seconds + fate.ssh_seconds:
        return Step.POWER_ON
    up = instance.condition() is Condition.PENDING and age >= fate.boot_seconds
    return Step.COME_UP if up and (powered or fate.ssh_seconds) else Step.WAIT


class Conductor:
    """Moves one cloud on. `run` it in a task; what it switches goes on in threads."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._powered: set[str] = set()
        self._switching: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled; machines stay as they are."""
        try:
            while True:
                self._cloud.changed.clear()
                booting = self._round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BOOT_POLL if booting else IDLE_POLL):
                        await self._cloud.changed.wait()
        finally:
            if self._switching:
                await asyncio.wait(self._switching.values())

    def _round(self) -> bool:
        """Take one step for each instance. True while some are about to change."""
        self._change_prices()
        live = self._cloud.state.live()
        now = self._cloud.clock.now()
        for instance in live:
            if instance.id not in self._switching:
                self._take(instance, due(instance, now, powered=instance.id in self._powered))
        return any(each.running is None or each.stopping is not None for each in live)

    def _take(self, instance: Instance, step: Step) -> None:
        cloud, vms = self._cloud, self._cloud.vms
        match step:
            case Step.POWER_ON:
                self._switch(instance, lambda: vms.power_on(instance.id), self._powered_on)
            case Step.COME_UP if instance.fate.ssh_seconds or vms.listens(instance.id):
                cloud.record("running", id=instance.id)
            case Step.NOTICE:
                at = instance.created + (instance.fate.preempt_seconds or 0.0)
                cloud.record("noticed", id=instance.id, at=at)
            case Step.HANG:
                cloud.record("hung", id=instance.id)
                self._switch(instance, lambda: vms.power_off(instance.id), lambda _: None)
            case Step.END:
                self._end(instance, instance.cause)
            case Step.INTERRUPT:
                self._end(instance, "interrupted: the capacity was taken back")
            case Step.VANISH:
                self._end(instance, "vanished")
            case Step.WAIT if self._switched_off_inside(instance):
                self._end(instance, "powered off from inside")

    def _switched_off_inside(self, instance: Instance) -> bool:
        running = instance.condition() is Condition.RUNNING and instance.power_off_ends
        return running and not instance.hung and self._cloud.vms.powered_off(instance.id)

    def _powered_on(self, instance: Instance) -> None:
        self._powered.add(instance.id)

    def _end(self, instance: Instance, cause: str) -> None:
        """Switch a machine off, then write that it is gone, and what it cost."""
        self._switch(
            instance,
            lambda: self._cloud.vms.power_off(instance.id),
            lambda instance: record_gone(self._cloud, instance, cause),
        )

    def _switch(
        self, instance: Instance, work: Callable[[], bool | None], then: Callable[[Instance], None]
    ) -> None:
        async def switch() -> None:
            try:
                done = await asyncio.to_thread(work)
            except Exception:
                logger.exception("machine %s cannot be switched; trying again", instance.id)
                done = False
            if done is False:
                await asyncio.sleep(SWITCH_AGAIN)
            else:
                then(instance)
            del self._switching[instance.id]
            self._cloud.changed.set()

        self._switching[instance.id] = asyncio.create_task(switch())

    def _change_prices(self) -> None:
        cloud = self._cloud
        passed = cloud.clock.now() - cloud.scenario_began
        for number, change in enumerate(cloud.scenario.prices):
            if passed >= change.after_seconds and number not in cloud.prices_changed:
                what = {"instance_type": change.instance_type, "market": change.market}
                cloud.record("priced", **what, hourly=f"{change.hourly:f}", number=number)


def record_gone(cloud: Cloud, instance: Instance, cause: str) -> None:
    """The machine is no more, and its bill is closed."""
    now = round(cloud.clock.now(), 3)
    paid = {"seconds": round(now - instance.created, 3), "amount": f"{instance.amount(now):f}"}
    cloud.record("gone", id=instance.id, cause=cause, billed=paid)
