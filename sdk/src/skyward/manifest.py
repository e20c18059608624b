"""ComputePool and Task objects as the SDK writes them: pure functions from specs to plain dicts.

The API server checks them against the contract and sets defaults, so only what was asked for is written. No
pydantic here: a Task is made for every operator expression.
"""

import base64
import hashlib
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from skyward.contract.names import API_VERSION, LABEL_MANAGED_BY, LABEL_POOL, LABEL_RUN, POOL, TASK
from skyward.functions import Function, PendingFunction, Retry
from skyward.image import Image
from skyward.packing import Packed, pack_function
from skyward.spec import RESULT_SECONDS, Accelerator, Budget, HealthChecker, Options, Spec, Volume
from skyward.wire.options import CallOptions

MANAGED_BY = "skyward-sdk"
INLINE_LIMIT = 64 * 1024
"""Larger packages of calls go to the gateway; etcd and every watcher would carry them otherwise."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who makes the objects: the label that its watch selects, and the hash of the ticket that it keeps."""

    run: str
    ticket_hash: str

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything that this run makes."""
        return {LABEL_RUN: self.run, LABEL_MANAGED_BY: MANAGED_BY}


def object_name(stem: str, digits: int, limit: int = 40) -> str:
    """A name that the API server takes, made of `stem` and that many random hexadecimal digits."""
    clean = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "skyward"
    if not clean[0].isalpha():
        clean = f"s-{clean}"
    return f"{clean[: limit - digits - 1].rstrip('-')}-{secrets.token_hex(digits)[:digits]}"


def candidate_objects(specs: Sequence[Spec]) -> list[dict[str, Any]]:
    """The candidates of specs: c0, c1 and so on."""
    return [_candidate(f"c{position}", spec) for position, spec in enumerate(specs)]


def selection_word(selection: Any) -> str:
    """How a pool chooses among its candidates: what a function has put in order is taken as it comes."""
    return selection if isinstance(selection, str) else "first"


def pool_object(
    name: str,
    namespace: str,
    specs: Sequence[Spec],
    options: Options,
    owner: Owner,
    candidates: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The ComputePool of `Compute(...)`, with the candidates that were chosen already where there are some.

    Raises ValueError if the specs contradict one another.
    """
    first = specs[0]
    for field in ("nodes", "image", "ttl", "volumes"):
        if any(getattr(spec, field) != getattr(first, field) for spec in specs[1:]):
            raise ValueError(f"{field} must be the same in every Spec: it belongs to the whole pool")
    nodes = first.node_counts
    spec: dict[str, Any] = {
        "candidates": list(candidates or candidate_objects(specs)),
        "selection": selection_word(options.selection),
        "nodes": _given(desired=nodes.desired, min=nodes.min, max=nodes.max),
        "image": _image(first.image),
        "lifetime": _given(
            ttlSeconds=first.ttl,
            idleSeconds=options.autoscale_idle_timeout,
            maxLifetimeSeconds=options.max_lifetime,
        ),
        "ticketHash": owner.ticket_hash,
    }
    if options.worker is not None:
        spec["worker"] = {
            "concurrency": options.worker.concurrency,
            "buffer": options.worker.buffer,
            "executor": "thread" if options.worker.executor == "thread" else "process",
            "reuse": options.worker.reuse_processes,
        }
    if options.lease_timeout is not None:
        spec["lease"] = {"durationSeconds": options.lease_timeout}
    timeouts = _given(
        provisionSeconds=options.provision_timeout,
        sshSeconds=options.ssh_timeout,
        bootstrapSeconds=options.bootstrap_timeout,
    )
    if timeouts:
        spec["timeouts"] = timeouts
    if isinstance(options.budget, Budget):
        spec["budget"] = _budget(options.budget)
    if options.health_checker is not None:
        spec["health"] = {"checker": _checker(options.health_checker)}
    if first.volumes:
        spec["volumes"] = [_volume(volume) for volume in first.volumes]
    return {
        "apiVersion": API_VERSION,
        "kind": POOL.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {**owner.labels, LABEL_POOL: name}},
        "spec": spec,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return _given(
        maxTotal=None if budget.total is None else _decimal(budget.total),
        maxHourly=None if budget.hourly is None else _decimal(budget.hourly),
        onExceeded=budget.on_exceeded.capitalize(),
        drainSeconds=budget.drain_seconds,
        unknownPrice=budget.unknown_price.capitalize(),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """How the calls of a Task run: where, how long, how often again. Times are seconds.

    `result_ttl` is how long the Task stays once it has ended; None: until it is deleted.
    """

    mode: str = "Any"
    rank: int | None = None
    timeout: float | None = None
    queue_timeout: float | None = None
    retry: Retry | None = None
    result_ttl: int | None = RESULT_SECONDS


def call_options(call: Call) -> CallOptions:
    """How one call runs, as its package says it."""
    retry = call.retry or Retry()
    return CallOptions(
        _whole(call.timeout) or 0,
        retry.on_interruption,
        retry.on_exception,
        retry.backoff,
        retry.max_backoff,
    )


def task_object(
    name: str, namespace: str, pool: str, python: str, count: int, packed: Packed, call: Call, owner: Owner
) -> dict[str, Any]:
    """The Task of one operator expression; a small package stands inside it, else only its digest."""
    calls: dict[str, Any] = {"python": python, "count": count}
    package = packed.package
    if len(package) <= INLINE_LIMIT and not packed.parts:
        calls["package"] = base64.b64encode(package).decode()
    else:
        calls["blob"] = {"digest": hashlib.sha256(package).hexdigest(), "sizeBytes": len(package)}
    spec: dict[str, Any] = {
        "poolRef": {"name": pool},
        "calls": calls,
        "ticketHash": owner.ticket_hash,
    }
    if call.result_ttl is not None:
        spec["ttlSecondsAfterFinished"] = call.result_ttl
    if call.mode != "Any":
        spec["target"] = _given(mode=call.mode, rank=call.rank)
    timeouts = _given(queueSeconds=_whole(call.queue_timeout), runSeconds=_whole(call.timeout))
    if timeouts:
        spec["timeouts"] = timeouts
    if call.retry is not None:
        spec["retry"] = {
            "onInterruption": call.retry.on_interruption,
            "onException": call.retry.on_exception,
            "backoffSeconds": call.retry.backoff,
            "maxBackoffSeconds": call.retry.max_backoff,
        }
    return {
        "apiVersion": API_VERSION,
        "kind": TASK.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {**owner.labels, LABEL_POOL: pool}},
        "spec": spec,
    }


def open_task_object(
    name: str, namespace: str, pool: str, python: str, call: Call, owner: Owner
) -> dict[str, Any]:
    """A Task whose calls come while it runs."""
    body = task_object(name, namespace, pool, python, 1, Packed(b""), call, owner)
    body["spec"]["calls"] = {"python": python, "open": True}
    return body


def _candidate(name: str, spec: Spec) -> dict[str, Any]:
    provider = spec.provider
    regions = [spec.region] if spec.region else list(provider.places)
    return _given(
        name=name,
        provider=provider.name,
        credentialsRef={"name": provider.credentials} if provider.credentials else None,
        accelerator=_accelerator(spec.accelerator),
        regions=regions or None,
        instanceTypes=[spec.instance_type] if spec.instance_type else None,
        vcpus=None if spec.vcpus is None else math.ceil(spec.vcpus),
        memoryGiB=None if spec.memory_gb is None else math.ceil(spec.memory_gb),
        diskGiB=spec.disk_gb,
        architecture=spec.architecture,
        market=spec.allocation,
        maxHourlyPrice=None if spec.max_hourly_cost is None else _decimal(spec.max_hourly_cost),
        parameters=provider.settings or None,
    )


def _accelerator(accelerator: Accelerator | str | None) -> dict[str, Any] | None:
    if accelerator is None or isinstance(accelerator, str):
        return {"name": accelerator} if accelerator else None
    return _given(
        name=accelerator.name,
        count=_decimal(accelerator.count),
        memoryGiB=accelerator.memory_gib,
        formFactor=accelerator.form_factor,
        mig=accelerator.mig,
    )


def _image(image: Image) -> dict[str, Any]:
    return _given(
        python=image.python_minor,
        pip=list(image.pip) or None,
        indexes=[{"url": index.url, "packages": list(index.packages)} for index in image.pip_indexes] or None,
        apt=list(image.apt) or None,
        env=_pairs(image.env, "value"),
        shellVars=_pairs(image.shell_vars, "command"),
    )


def _checker(checker: HealthChecker) -> dict[str, Any]:
    """Raises NotPicklable, or ValueError for a function that is too large for the object."""
    fn = checker.fn.fn if isinstance(checker.fn, Function) else checker.fn
    pickled = pack_function(PendingFunction(fn))
    if len(pickled) > INLINE_LIMIT:
        raise ValueError(
            f"the function of health_checker takes {len(pickled)} bytes with all that it refers to, and "
            f"{INLINE_LIMIT} are allowed: have it load what it needs on the node"
        )
    return {
        "function": base64.b64encode(pickled).decode(),
        "periodSeconds": checker.interval,
        "timeoutSeconds": checker.timeout,
        "failureThreshold": checker.consecutive_failures,
        "initialDelaySeconds": checker.initial_delay,
    }


def _volume(volume: Volume) -> dict[str, Any]:
    return _given(
        bucket=volume.bucket, mountPath=volume.mount, prefix=volume.prefix or None, readOnly=volume.read_only
    )


def _pairs(values: Mapping[str, str], key: str) -> list[dict[str, str]] | None:
    return [{"name": name, key: value} for name, value in values.items()] or None


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _whole(seconds: float | None) -> int | None:
    """The contract counts whole seconds; a limit is never made shorter than asked for."""
    return None if seconds is None else max(1, math.ceil(seconds))


def _decimal(value: float) -> str:
    return format(Decimal(str(value)).normalize(), "f")
