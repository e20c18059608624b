"""Manifests that the API server must refuse, and what its message has to say.

Each row names the field that is wrong and the words that tell what is allowed. `Refused` rows are created,
`Unchangeable` rows are created well and then changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

type Manifest = dict[str, Any]

HASH = "0123456789abcdef" * 4
OTHER_HASH = "fedcba9876543210" * 4
FACTORIAL: Manifest = {"entrypoint": "math:factorial", "args": [5]}
BLOB: Manifest = {"digest": HASH, "sizeBytes": 200_000}
IMAGE: Manifest = {"python": "3.13"}


def manifest(kind: str, spec: Manifest | None, **metadata: Any) -> Manifest:
    """A manifest of one kind; without spec when it is None."""
    made: Manifest = {
        "apiVersion": "skyward.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "bad", **metadata},
    }
    return made if spec is None else {**made, "spec": spec}


def pool(name: str = "bad", **spec: Any) -> Manifest:
    """A pool of one local node, with other fields of the spec as given."""
    return manifest("ComputePool", {"candidates": [{"name": "here", "provider": "local"}], **spec}, name=name)


def candidate(**fields: Any) -> Manifest:
    """A pool whose only candidate has these fields."""
    return pool(candidates=[{"name": "here", "provider": "local", **fields}])


def accelerator(**fields: Any) -> Manifest:
    """A pool whose only candidate has this accelerator."""
    return candidate(accelerator={"name": "H100", **fields})


def image(**fields: Any) -> Manifest:
    """A pool with this image."""
    return pool(image=fields)


def volume(**fields: Any) -> Manifest:
    """A pool with one volume."""
    return pool(volumes=[{"bucket": "data", "mountPath": "/data", **fields}])


def task(name: str = "bad", **spec: Any) -> Manifest:
    """A task without payload, with other fields of the spec as given."""
    return manifest("Task", {"poolRef": {"name": "gpus"}, **spec}, name=name)


def good_task(**spec: Any) -> Manifest:
    """A task that would run, with other fields of the spec as given."""
    return task(function=FACTORIAL, **spec)


def function(**fields: Any) -> Manifest:
    """A task with this function."""
    return task(function=fields)


def calls(**fields: Any) -> Manifest:
    """A task with these pickled calls."""
    return task(calls=fields)


def node(**spec: Any) -> Manifest:
    """A node as the operator writes it, with other fields of the spec as given."""
    return manifest(
        "ComputeNode",
        {
            "poolRef": {"name": "gpus", "uid": "4e0d9923-25a7-4597-9b26-4d128b6abc32"},
            "rank": 0,
            "incarnation": 0,
            "candidates": [{"name": "here", "provider": "local"}],
            "image": IMAGE,
            "worker": {"concurrency": 1},
            "timeouts": {"sshSeconds": 600},
            "templateHash": "0a1b2c",
            **spec,
        },
    )


def without(document: Manifest, name: str) -> Manifest:
    """The manifest without one field of its spec."""
    return {**document, "spec": {key: value for key, value in document["spec"].items() if key != name}}


@dataclass(frozen=True, slots=True)
class Refused:
    """A manifest that cannot be created."""

    what: str
    document: Manifest
    names: str
    allows: str


@dataclass(frozen=True, slots=True)
class Unchangeable:
    """A change of the spec that is refused."""

    what: str
    before: Manifest
    change: Manifest
    names: str
    allows: str = "cannot be changed after creation"


LABEL = "should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"
MONEY = 'decimal string in US dollars such as "2.50"'
PYTHON = 'major.minor in quotes, from "3.12" on'
STRING = "must be of type string"
PAYLOADS = "exactly one of calls, function and command is required"

POOLS = [
    Refused("pool without spec", manifest("ComputePool", None), "spec", "Required value"),
    Refused("pool without candidates", manifest("ComputePool", {}), "spec.candidates", "Required value"),
    Refused("no candidate", pool(candidates=[]), "spec.candidates", "should have at least 1 items"),
    Refused(
        "too many candidates",
        pool(candidates=[{"name": f"c{index}", "provider": "aws"} for index in range(17)]),
        "spec.candidates",
        "must have at most 16 items",
    ),
    Refused(
        "two candidates of one name",
        pool(candidates=[{"name": "a", "provider": "aws"}, {"name": "a", "provider": "gcp"}]),
        "spec.candidates[1]",
        "Duplicate value",
    ),
    Refused(
        "candidate without name",
        pool(candidates=[{"provider": "aws"}]),
        "spec.candidates[0].name",
        "Required value",
    ),
    Refused(
        "candidate without provider",
        pool(candidates=[{"name": "a"}]),
        "spec.candidates[0].provider",
        "Required value",
    ),
    Refused("candidate name in capitals", candidate(name="Main"), "spec.candidates[0].name", LABEL),
    Refused(
        "provider with spaces", candidate(provider="my cloud"), "spec.candidates[0].provider", "should match"
    ),
    Refused(
        "unknown market",
        candidate(market="cheap"),
        "spec.candidates[0].market",
        '"spot-if-available", "spot"',
    ),
    Refused(
        "unknown architecture",
        candidate(architecture="amd64"),
        "spec.candidates[0].architecture",
        '"x86_64", "arm64"',
    ),
    Refused("price as number", candidate(maxHourlyPrice=4.5), "spec.candidates[0].maxHourlyPrice", STRING),
    Refused("price with comma", candidate(maxHourlyPrice="4,50"), "spec.candidates[0].maxHourlyPrice", MONEY),
    Refused(
        "price with currency", candidate(maxHourlyPrice="$4"), "spec.candidates[0].maxHourlyPrice", MONEY
    ),
    Refused("negative price", candidate(maxHourlyPrice="-1"), "spec.candidates[0].maxHourlyPrice", MONEY),
    Refused(
        "price in e notation", candidate(maxHourlyPrice="1e3"), "spec.candidates[0].maxHourlyPrice", MONEY
    ),
    Refused("no processors", candidate(vcpus=0), "spec.candidates[0].vcpus", "greater than or equal to 1"),
    Refused("half a processor", candidate(vcpus=1.5), "spec.candidates[0].vcpus", "must be of type integer"),
    Refused(
        "memory with unit",
        candidate(memoryGiB="64Gi"),
        "spec.candidates[0].memoryGiB",
        "must be of type integer",
    ),
    Refused(
        "too much disk",
        candidate(diskGiB=100_000),
        "spec.candidates[0].diskGiB",
        "less than or equal to 65536",
    ),
    Refused(
        "one region as text",
        candidate(regions="us-east-1"),
        "spec.candidates[0].regions",
        "must be of type array",
    ),
    Refused(
        "region twice", candidate(regions=["a", "a"]), "spec.candidates[0].regions[1]", "Duplicate value"
    ),
    Refused(
        "empty region", candidate(regions=[""]), "spec.candidates[0].regions[0]", "at least 1 chars long"
    ),
    Refused("parameter as number", candidate(parameters={"a": 1}), "spec.candidates[0].parameters.a", STRING),
    Refused(
        "too many parameters",
        candidate(parameters={f"p{index}": "x" for index in range(33)}),
        "spec.candidates[0].parameters",
        "must have at most 32 items",
    ),
    Refused(
        "credentials as text",
        candidate(credentialsRef="aws"),
        "spec.candidates[0].credentialsRef",
        "must be of type object",
    ),
    Refused(
        "credentials without name",
        candidate(credentialsRef={}),
        "spec.candidates[0].credentialsRef.name",
        "Required value",
    ),
    Refused(
        "misspelt field", candidate(instanceType="p5"), "spec.candidates[0].instanceType", "unknown field"
    ),
    Refused(
        "accelerator as text",
        candidate(accelerator="H100"),
        "spec.candidates[0].accelerator",
        "must be of type object",
    ),
    Refused(
        "accelerator without name",
        candidate(accelerator={"count": "1"}),
        "spec.candidates[0].accelerator.name",
        "Required value",
    ),
    Refused("accelerators as number", accelerator(count=8), "spec.candidates[0].accelerator.count", STRING),
    Refused(
        "no accelerators",
        accelerator(count="0"),
        "spec.candidates[0].accelerator.count",
        "decimal string above 0",
    ),
    Refused(
        "too many accelerators",
        accelerator(count="1000"),
        "spec.candidates[0].accelerator.count",
        "below 1000",
    ),
    Refused(
        "MIG profile without memory",
        accelerator(mig="3g"),
        "spec.candidates[0].accelerator.mig",
        "should match",
    ),
    Refused(
        "unknown selection", pool(selection="fastest"), "spec.selection", '"cheapest", "first", "available"'
    ),
    Refused("nodes as number", pool(nodes=4), "spec.nodes", "must be of type object"),
    Refused(
        "negative nodes", pool(nodes={"desired": -1}), "spec.nodes.desired", "greater than or equal to 0"
    ),
    Refused(
        "too many nodes", pool(nodes={"desired": 1001}), "spec.nodes.desired", "less than or equal to 1000"
    ),
    Refused(
        "minimum above desired",
        pool(nodes={"desired": 2, "min": 3}),
        "spec.nodes.min",
        "min is 3 but desired is 2: min must be at most desired",
    ),
    Refused(
        "minimum above the default", pool(nodes={"min": 2}), "spec.nodes.min", "min is 2 but desired is 1"
    ),
    Refused(
        "desired above maximum",
        pool(nodes={"desired": 5, "max": 4}),
        "spec.nodes.desired",
        "desired is 5 but max is 4: desired must be at most max",
    ),
    Refused("Python 2", image(python="2.7"), "spec.image.python", PYTHON),
    Refused("old Python", image(python="3.11"), "spec.image.python", PYTHON),
    Refused("Python with patch", image(python="3.13.1"), "spec.image.python", "may not be more than 5"),
    Refused("Python as number", image(python=3.13), "spec.image.python", STRING),
    Refused("option among packages", image(pip=["--index-url=x"]), "spec.image.pip[0]", "should match '^[^-"),
    Refused("packages as text", image(pip="torch"), "spec.image.pip", "must be of type array"),
    Refused(
        "Debian package in capitals", image(apt=["FFmpeg"]), "spec.image.apt[0]", "should match '^[a-z0-9]"
    ),
    Refused("environment as text", image(env="A=b"), "spec.image.env", "must be of type array"),
    Refused(
        "variable with hyphen",
        image(env=[{"name": "MY-VAR"}]),
        "spec.image.env[0].name",
        "should match '^[A-Za-z_]",
    ),
    Refused(
        "variable twice", image(env=[{"name": "A"}, {"name": "A"}]), "spec.image.env[1]", "Duplicate value"
    ),
    Refused(
        "index without scheme",
        image(indexes=[{"url": "pypi.org/simple"}]),
        "spec.image.indexes[0].url",
        "https?",
    ),
    Refused(
        "short includes digest",
        image(includesDigest="abc"),
        "spec.image.includesDigest",
        "at least 64 chars long",
    ),
    Refused(
        "metric every moment",
        image(metrics=[{"name": "cpu", "intervalSeconds": 0}]),
        "spec.image.metrics[0].intervalSeconds",
        "greater than or equal to 1",
    ),
    Refused(
        "no slots", pool(worker={"concurrency": 0}), "spec.worker.concurrency", "greater than or equal to 1"
    ),
    Refused(
        "unknown executor", pool(worker={"executor": "fork"}), "spec.worker.executor", '"process", "thread"'
    ),
    Refused(
        "volume without bucket",
        pool(volumes=[{"mountPath": "/data"}]),
        "spec.volumes[0].bucket",
        "Required value",
    ),
    Refused("relative volume", volume(mountPath="data"), "spec.volumes[0].mountPath", "should match '^(/"),
    Refused(
        "volume that leaves its folder",
        volume(mountPath="/data/../etc"),
        "spec.volumes[0].mountPath",
        "should match",
    ),
    Refused(
        "volume over the system",
        volume(mountPath="/usr"),
        "spec.volumes[0].mountPath",
        "a folder of its own such as /data",
    ),
    Refused("unknown volume mode", volume(mode="copy"), "spec.volumes[0].mode", '"mount", "sync"'),
    Refused(
        "plugin twice",
        pool(plugins=[{"name": "torch"}, {"name": "torch"}]),
        "spec.plugins[1]",
        "Duplicate value",
    ),
    Refused(
        "negative ttl",
        pool(lifetime={"ttlSeconds": -1}),
        "spec.lifetime.ttlSeconds",
        "greater than or equal to 0",
    ),
    Refused(
        "ttl with unit",
        pool(lifetime={"ttlSeconds": "10m"}),
        "spec.lifetime.ttlSeconds",
        "must be of type integer",
    ),
    Refused(
        "idle for years",
        pool(lifetime={"idleSeconds": 10**8}),
        "spec.lifetime.idleSeconds",
        "or equal to 2592000",
    ),
    Refused("lease without duration", pool(lease={}), "spec.lease.durationSeconds", "Required value"),
    Refused(
        "short lease",
        pool(lease={"durationSeconds": 5}),
        "spec.lease.durationSeconds",
        "greater than or equal to 30",
    ),
    Refused("budget as number", pool(budget={"maxTotal": 100}), "spec.budget.maxTotal", STRING),
    Refused("budget with currency", pool(budget={"maxTotal": "100 USD"}), "spec.budget.maxTotal", MONEY),
    Refused("budget too precise", pool(budget={"maxHourly": "1.1234567"}), "spec.budget.maxHourly", MONEY),
    Refused(
        "unknown price policy",
        pool(budget={"unknownPrice": "Ask"}),
        "spec.budget.unknownPrice",
        '"Deny", "Allow"',
    ),
    Refused(
        "unknown budget action",
        pool(budget={"onExceeded": "Warn"}),
        "spec.budget.onExceeded",
        '"Drain", "Stop"',
    ),
    Refused(
        "more than all nodes",
        pool(health={"maxUnhealthyPercent": 101}),
        "spec.health.maxUnhealthyPercent",
        "equal to 100",
    ),
    Refused(
        "probe without command", pool(health={"probe": {}}), "spec.health.probe.command", "Required value"
    ),
    Refused(
        "empty probe",
        pool(health={"probe": {"command": []}}),
        "spec.health.probe.command",
        "at least 1 items",
    ),
    Refused(
        "impatient provisioning",
        pool(timeouts={"provisionSeconds": 1}),
        "spec.timeouts.provisionSeconds",
        "equal to 10",
    ),
    Refused("suspended by text", pool(suspend="yes"), "spec.suspend", "must be of type boolean"),
    Refused(
        "ticket instead of its hash", pool(ticketHash="secret"), "spec.ticketHash", "at least 64 chars long"
    ),
    Refused(
        "hash in capitals", pool(ticketHash=HASH.upper()), "spec.ticketHash", "should match '^[0-9a-f]{64}$'"
    ),
    Refused("long pool name", pool(name="p" * 41), "metadata.name", "at most 40 characters"),
    Refused("pool name with dots", pool(name="team.pool"), "metadata.name", "no dots"),
    Refused("misspelt pool field", pool(candidate=[]), "spec.candidate", "unknown field"),
]

TASKS = [
    Refused("task without spec", manifest("Task", None), "spec", "Required value"),
    Refused("task without pool", manifest("Task", {"function": FACTORIAL}), "spec.poolRef", "Required value"),
    Refused(
        "pool by text",
        manifest("Task", {"poolRef": "gpus", "function": FACTORIAL}),
        "spec.poolRef",
        "type object",
    ),
    Refused("no payload", task(), "spec", PAYLOADS + ", and 0 of them are given"),
    Refused(
        "two payloads",
        task(function=FACTORIAL, command={"argv": ["ls"]}),
        "spec",
        PAYLOADS + ", and 2 of them",
    ),
    Refused(
        "three payloads",
        task(function=FACTORIAL, command={"argv": ["ls"]}, calls={"package": "AAAA"}),
        "spec",
        PAYLOADS + ", and 3 of them",
    ),
    Refused("calls without bytes", calls(count=1), "spec.calls", "exactly one of package"),
    Refused(
        "calls with bytes twice", calls(package="AAAA", blob=BLOB), "spec.calls", "exactly one of package"
    ),
    Refused(
        "open calls with bytes", calls(package="AAAA", open=True), "spec.calls", "exactly one of package"
    ),
    Refused("calls that are not open", calls(open=False), "spec.calls.open", "true or left out"),
    Refused("open calls with a count", calls(open=True, count=2), "spec.calls.count", "leave it out"),
    Refused(
        "broadcast of open calls",
        task(calls={"open": True}, target={"mode": "All"}),
        "spec.target",
        "not for open calls",
    ),
    Refused("no calls", calls(count=0, package="AAAA"), "spec.calls.count", "greater than or equal to 1"),
    Refused(
        "too many calls", calls(count=1_000_001, package="AAAA"), "spec.calls.count", "or equal to 1000000"
    ),
    Refused("package that is no base64", calls(package="pickle"), "spec.calls.package", "must be base64"),
    Refused(
        "large package inline",
        calls(package="A" * 87_388),
        "spec.calls.package",
        "may not be more than 87384",
    ),
    Refused("blob without size", calls(blob={"digest": HASH}), "spec.calls.blob.sizeBytes", "Required value"),
    Refused(
        "blob with short digest",
        calls(blob={**BLOB, "digest": "ab"}),
        "spec.calls.blob.digest",
        "at least 64 chars",
    ),
    Refused(
        "blob of negative size",
        calls(blob={**BLOB, "sizeBytes": -1}),
        "spec.calls.blob.sizeBytes",
        "or equal to 0",
    ),
    Refused("calls of an old Python", calls(package="AAAA", python="3.8"), "spec.calls.python", PYTHON),
    Refused("function without code", function(args=[5]), "spec.function", "exactly one of entrypoint"),
    Refused(
        "function with both forms",
        function(entrypoint="math:factorial", source="def f(): ...", name="f"),
        "spec.function",
        "exactly one of entrypoint",
    ),
    Refused(
        "source without name", function(source="def f(): ..."), "spec.function.name", "required with source"
    ),
    Refused(
        "entrypoint with name",
        function(entrypoint="math:factorial", name="f"),
        "spec.function.name",
        "only allowed with source",
    ),
    Refused(
        "entrypoint with dot",
        function(entrypoint="math.factorial"),
        "spec.function.entrypoint",
        "written module:function",
    ),
    Refused(
        "entrypoint that is a path",
        function(entrypoint="a/b.py:f"),
        "spec.function.entrypoint",
        "written module:function",
    ),
    Refused(
        "arguments as text",
        function(entrypoint="math:factorial", args="5"),
        "spec.function.args",
        "type array",
    ),
    Refused(
        "keyword arguments as list",
        function(entrypoint="a:b", kwargs=[1]),
        "spec.function.kwargs",
        "type object",
    ),
    Refused(
        "too many arguments",
        function(entrypoint="a:b", args=[0] * 65),
        "spec.function.args",
        "at most 64 items",
    ),
    Refused("no items", function(entrypoint="a:b", items=[]), "spec.function.items", "at least 1 items"),
    Refused(
        "too many items",
        function(entrypoint="a:b", items=[0] * 10_001),
        "spec.function.items",
        "at most 10000 items",
    ),
    Refused(
        "long source",
        function(source="#" * 65_537, name="f"),
        "spec.function.source",
        "may not be more than 65536",
    ),
    Refused("empty command", task(command={"argv": []}), "spec.command.argv", "at least 1 items"),
    Refused("command as text", task(command={"argv": "ls -l"}), "spec.command.argv", "must be of type array"),
    Refused(
        "relative folder",
        task(command={"argv": ["ls"], "workingDirectory": "src"}),
        "spec.command.workingDirectory",
        "should match '^/",
    ),
    Refused(
        "unknown target",
        good_task(target={"mode": "Every"}),
        "spec.target.mode",
        '"Any", "Head", "Rank", "All"',
    ),
    Refused(
        "rank mode without rank",
        good_task(target={"mode": "Rank"}),
        "spec.target.rank",
        "required with mode Rank",
    ),
    Refused(
        "rank without its mode",
        good_task(target={"rank": 1}),
        "spec.target.rank",
        "only allowed with mode Rank",
    ),
    Refused(
        "negative rank", good_task(target={"mode": "Rank", "rank": -1}), "spec.target.rank", "or equal to 0"
    ),
    Refused(
        "broadcast of several calls",
        task(calls={"count": 2, "package": "AAAA"}, target={"mode": "All"}),
        "spec.target",
        "calls.count must be 1",
    ),
    Refused("no parallelism", good_task(parallelism=0), "spec.parallelism", "greater than or equal to 1"),
    Refused(
        "no time",
        good_task(timeouts={"runSeconds": 0}),
        "spec.timeouts.runSeconds",
        "greater than or equal to 1",
    ),
    Refused(
        "fractions of seconds",
        good_task(timeouts={"queueSeconds": 1.5}),
        "spec.timeouts.queueSeconds",
        "type integer",
    ),
    Refused(
        "endless grace",
        good_task(timeouts={"graceSeconds": 7200}),
        "spec.timeouts.graceSeconds",
        "or equal to 3600",
    ),
    Refused(
        "too many retries",
        good_task(retry={"onInterruption": 101}),
        "spec.retry.onInterruption",
        "or equal to 100",
    ),
    Refused(
        "retries forever", good_task(retry={"onException": -1}), "spec.retry.onException", "or equal to 0"
    ),
    Refused(
        "backoff above its maximum",
        good_task(retry={"backoffSeconds": 100}),
        "spec.retry.backoffSeconds",
        "is 100 but must be at most maxBackoffSeconds, which is 60",
    ),
    Refused("unknown error policy", good_task(onError="Ignore"), "spec.onError", '"Continue", "Stop"'),
    Refused(
        "negative ttl of a task",
        good_task(ttlSecondsAfterFinished=-1),
        "spec.ttlSecondsAfterFinished",
        "or equal to 0",
    ),
    Refused("priority by word", good_task(priority="high"), "spec.priority", "must be of type integer"),
    Refused(
        "extreme priority", good_task(priority=2_000_000), "spec.priority", "less than or equal to 1000000"
    ),
    Refused("task budget as number", good_task(budget={"maxTotal": 1.5}), "spec.budget.maxTotal", STRING),
    Refused(
        "open ticket of a task", good_task(ticketHash="secret"), "spec.ticketHash", "at least 64 chars long"
    ),
    Refused(
        "long task name",
        {**good_task(), "metadata": {"name": "t" * 64}},
        "metadata.name",
        "at most 63 characters",
    ),
    Refused("misspelt task field", good_task(timeout=60), "spec.timeout", "unknown field"),
    Refused("status in place of spec", good_task(status={}), "spec.status", "unknown field"),
]

NODES = [
    Refused("node without pool", without(node(), "poolRef"), "spec.poolRef", "Required value"),
    Refused("pool without uid", node(poolRef={"name": "gpus"}), "spec.poolRef.uid", "Required value"),
    Refused("node without rank", without(node(), "rank"), "spec.rank", "Required value"),
    Refused("rank beyond the largest pool", node(rank=1000), "spec.rank", "less than or equal to 999"),
    Refused("node without image", without(node(), "image"), "spec.image", "Required value"),
    Refused(
        "template hash in words",
        node(templateHash="newest"),
        "spec.templateHash",
        "should match '^[0-9a-f]+$'",
    ),
    Refused("node without candidates", node(candidates=[]), "spec.candidates", "at least 1 items"),
]

REFUSED = [*POOLS, *TASKS, *NODES]

UNCHANGEABLE = [
    Unchangeable("pool of a task", good_task(), {"poolRef": {"name": "other"}}, "spec.poolRef"),
    Unchangeable(
        "entrypoint", good_task(), {"function": {"entrypoint": "math:sqrt", "args": [5]}}, "spec.function"
    ),
    Unchangeable("command", task(command={"argv": ["ls"]}), {"command": {"argv": ["rm"]}}, "spec.command"),
    Unchangeable("package", calls(package="AAAA"), {"calls": {"package": "BBBB"}}, "spec.calls"),
    Unchangeable("count of calls", calls(package="AAAA"), {"calls": {"count": 2}}, "spec.calls"),
    Unchangeable(
        "package for blob", calls(package="AAAA"), {"calls": {"package": None, "blob": BLOB}}, "spec.calls"
    ),
    Unchangeable(
        "function for command",
        good_task(),
        {"function": None, "command": {"argv": ["ls"]}},
        "spec.command",
        "cannot be added or removed after creation",
    ),
    Unchangeable("target", good_task(), {"target": {"mode": "All"}}, "spec.target"),
    Unchangeable(
        "ticket of a task", good_task(ticketHash=HASH), {"ticketHash": OTHER_HASH}, "spec.ticketHash"
    ),
    Unchangeable(
        "ticket added to a task",
        good_task(),
        {"ticketHash": HASH},
        "spec.ticketHash",
        "cannot be added or removed",
    ),
    Unchangeable(
        "ticket taken from a task",
        good_task(ticketHash=HASH),
        {"ticketHash": None},
        "spec.ticketHash",
        "cannot be added",
    ),
    Unchangeable("other controller", good_task(managedBy="a"), {"managedBy": "b"}, "spec.managedBy"),
    Unchangeable(
        "controller added", good_task(), {"managedBy": "a"}, "spec.managedBy", "cannot be added or removed"
    ),
    Unchangeable(
        "provider of a candidate",
        pool(),
        {"candidates": [{"name": "here", "provider": "aws"}]},
        "spec.candidates[0].provider",
    ),
    Unchangeable("ticket of a pool", pool(ticketHash=HASH), {"ticketHash": OTHER_HASH}, "spec.ticketHash"),
    Unchangeable(
        "ticket added to a pool",
        pool(),
        {"ticketHash": HASH},
        "spec.ticketHash",
        "cannot be added or removed",
    ),
    Unchangeable(
        "nodes above the maximum",
        pool(nodes={"max": 2}),
        {"nodes": {"desired": 3}},
        "spec.nodes.desired",
        "max is 2",
    ),
    Unchangeable("rank of a node", node(), {"rank": 1}, "spec"),
    Unchangeable("image of a node", node(), {"image": {"pip": ["torch"]}}, "spec"),
    Unchangeable("worker of a node", node(), {"worker": {"concurrency": 2}}, "spec"),
    Unchangeable("hash of a node", node(), {"templateHash": "ffff"}, "spec"),
]
