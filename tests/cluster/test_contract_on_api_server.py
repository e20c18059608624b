"""The contract on a real API server: what it refuses, what it fills in, what it shows."""

from __future__ import annotations

import itertools
import json
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.cluster.bad_manifests import (
    HASH,
    REFUSED,
    UNCHANGEABLE,
    Manifest,
    Refused,
    Unchangeable,
    calls,
    candidate,
    function,
    good_task,
    node,
    pool,
)

from skyward.contract.names import KINDS, NODE, POOL, TASK, Kind
from skyward.contract.node import ComputeNode
from skyward.contract.pool import ComputePool
from skyward.contract.reasons import (
    NODE_CONDITIONS,
    POOL_CONDITIONS,
    TASK_CONDITIONS,
    NodePhase,
    NodeReason,
    PoolPhase,
    PoolReason,
    TaskPhase,
    TaskReason,
)
from skyward.contract.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import ControlPlane

KIND_OF = {kind.kind: kind for kind in KINDS}
FULL_POOL: Manifest = pool(
    candidates=[
        {
            "name": "h100",
            "provider": "aws",
            "credentialsRef": {"name": "aws"},
            "accelerator": {
                "name": "H100",
                "count": "8",
                "memoryGiB": 80,
                "formFactor": "SXM",
                "mig": "3g.40gb",
            },
            "instanceTypes": ["p5.48xlarge"],
            "regions": ["us-east-1", "us-west-2"],
            "vcpus": 96,
            "memoryGiB": 1024,
            "diskGiB": 500,
            "architecture": "x86_64",
            "market": "spot",
            "maxHourlyPrice": "40.50",
            "parameters": {"subnet": "subnet-1"},
        },
        {"name": "fallback", "provider": "runpod", "accelerator": {"name": "A100", "count": "0.5"}},
    ],
    selection="first",
    nodes={"desired": 4, "min": 2, "max": 16},
    image={
        "python": "3.12",
        "pip": ["torch==2.9.1", "numpy>=2", "mine @ https://example.org/mine.whl"],
        "indexes": [{"url": "https://download.pytorch.org/whl/cu128", "packages": ["torch"]}],
        "apt": ["ffmpeg", "git=1:2.39.5-0+deb12u2"],
        "env": [{"name": "HF_HOME", "value": "/data/hf"}],
        "shellVars": [{"name": "CPUS", "command": "nproc"}],
        "includesDigest": HASH,
        "metrics": [{"name": "gpu"}, {"name": "files", "command": "ls | wc -l", "intervalSeconds": 10}],
    },
    worker={"concurrency": 2, "buffer": 1, "executor": "thread", "reuse": False},
    volumes=[
        {"bucket": "data", "mountPath": "/data/train", "prefix": "v1/", "readOnly": False, "mode": "sync"}
    ],
    plugins=[{"name": "torch", "parameters": {"backend": "nccl", "options": {"deep": [1, None]}}}],
    lifetime={"ttlSeconds": 0, "idleSeconds": 120, "lingerSeconds": 600, "maxLifetimeSeconds": 86400},
    lease={"durationSeconds": 300},
    budget={"maxTotal": "100", "maxHourly": "40.5", "unknownPrice": "Allow", "onExceeded": "Stop"},
    health={"unhealthyAfterSeconds": 60, "maxUnhealthyPercent": 20, "probe": {"command": ["nvidia-smi"]}},
    timeouts={"provisionSeconds": 600, "sshSeconds": 120, "bootstrapSeconds": 900},
    suspend=True,
    ticketHash=HASH,
)


def holds(stored: Any, wanted: Any) -> bool:
    """Whether everything that was written stands in what is stored, which has defaults besides."""
    if isinstance(wanted, dict):
        return all(name in stored and holds(stored[name], each) for name, each in wanted.items())
    if isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(holds, stored, wanted))
    return bool(stored == wanted)


class Kubernetes:
    """Raw requests to one namespace, so that nothing between test and API server hides a message."""

    def __init__(self, client: httpx.Client, namespace: str) -> None:
        self._client = client
        self._base = f"/apis/skyward.dev/v1alpha1/namespaces/{namespace}"
        self._names = itertools.count()

    def create(self, document: Manifest, **params: str) -> httpx.Response:
        """Create with strict field validation, as kubectl does."""
        path = f"{self._base}/{KIND_OF[document['kind']].plural}"
        return self._client.post(path, json=document, params={"fieldValidation": "Strict", **params})

    def made(self, document: Manifest) -> Manifest:
        """Create under a fresh name; the stored object."""
        name = f"{document['kind'].lower()}-{next(self._names)}"
        response = self.create({**document, "metadata": {**document["metadata"], "name": name}})
        assert response.status_code == 201, response.text
        return self._json(response)

    def patch(self, document: Manifest, change: Manifest, subresource: str = "") -> httpx.Response:
        """Merge-patch an object or one of its subresources."""
        path = f"{self._base}/{KIND_OF[document['kind']].plural}/{document['metadata']['name']}{subresource}"
        headers = {"Content-Type": "application/merge-patch+json"}
        return self._client.patch(
            path, content=json.dumps(change), headers=headers, params={"fieldValidation": "Strict"}
        )

    def patched(self, document: Manifest, change: Manifest, subresource: str = "") -> Manifest:
        """Merge-patch that has to work; the stored object."""
        response = self.patch(document, change, subresource)
        assert response.status_code == 200, response.text
        return self._json(response)

    def list(self, kind: Kind, **params: str) -> list[Manifest]:
        """The objects of a kind."""
        response = self._client.get(f"{self._base}/{kind.plural}", params=params)
        assert response.status_code == 200, response.text
        items: list[Manifest] = response.json()["items"]
        return items

    @staticmethod
    def _json(response: httpx.Response) -> Manifest:
        made: Manifest = response.json()
        return made


@pytest.fixture(scope="module")
def client(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    with httpx.Client(
        base_url=control_plane.server,
        headers={"Authorization": f"Bearer {control_plane.token}"},
        verify=context,
        timeout=30,
    ) as client:
        yield client


@pytest.fixture
def kubernetes(client: httpx.Client, namespace: str) -> Kubernetes:
    return Kubernetes(client, namespace)


@pytest.fixture
def kubectl(control_plane: ControlPlane, namespace: str) -> Callable[..., str]:
    def run(*arguments: str, stdin: str | None = None) -> str:
        assert control_plane.kubectl is not None, "kubectl belongs to the binaries of the control plane"
        command = [str(control_plane.kubectl), "--kubeconfig", str(control_plane.kubeconfig), "-n", namespace]
        done = subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    return run


# refused


def test_the_table_of_bad_manifests_is_long_and_has_no_row_twice() -> None:
    names = [row.what for row in REFUSED] + [row.what for row in UNCHANGEABLE]
    assert len(names) >= 90
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", REFUSED, ids=[row.what for row in REFUSED])
def test_a_bad_manifest_is_refused_with_field_and_remedy(client: httpx.Client, row: Refused) -> None:
    response = Kubernetes(client, "default").create(row.document)
    message = response.json().get("message", "")
    assert response.status_code in (400, 422), message
    assert row.names in message
    assert row.allows in message


@pytest.mark.parametrize("row", UNCHANGEABLE, ids=[row.what for row in UNCHANGEABLE])
def test_a_bad_change_is_refused_with_field_and_remedy(kubernetes: Kubernetes, row: Unchangeable) -> None:
    response = kubernetes.patch(kubernetes.made(row.before), {"spec": row.change})
    message = response.json().get("message", "")
    assert response.status_code == 422, message
    assert f"{row.names}:" in message
    assert row.allows in message


# accepted


def test_a_minimal_pool_gets_the_defaults_of_the_model(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(pool())
    model = ComputePool.read(pool())
    assert ComputePool.read(stored).spec == model.spec
    assert stored["spec"]["nodes"] == {"desired": 1}
    assert stored["spec"]["lifetime"]["ttlSeconds"] == 600
    assert stored["spec"]["candidates"][0]["market"] == "spot-if-available"


def test_a_full_pool_is_stored_as_written(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(FULL_POOL)
    assert holds(stored["spec"], FULL_POOL["spec"])
    assert ComputePool.read(stored).spec == ComputePool.read(FULL_POOL).spec


def test_what_the_model_writes_is_accepted_in_full_and_in_short(kubernetes: Kubernetes) -> None:
    model = ComputePool.read(FULL_POOL)
    kubernetes.made(model.document())
    short = kubernetes.made(model.document(exclude_defaults=True))
    assert ComputePool.read(short).spec == model.spec
    task = Task.read(good_task(target={"mode": "Rank", "rank": 3}))
    assert Task.read(kubernetes.made(task.document(exclude_defaults=True))).spec == task.spec
    machine = ComputeNode.read(node())
    assert ComputeNode.read(kubernetes.made(machine.document())).spec == machine.spec


def test_a_task_with_json_arguments_keeps_them_exactly(kubernetes: Kubernetes) -> None:
    arguments = {"args": [None, 1, 1.5, "text", True, {"a": [None]}], "kwargs": {"x": None, "y": {"z": [1]}}}
    stored = kubernetes.made(function(entrypoint="a.b:C.d", items=[1, None, [2]], **arguments))
    kept = stored["spec"]["function"]
    assert {name: kept[name] for name in arguments} == arguments
    assert kept["items"] == [1, None, [2]]


def test_the_largest_inline_package_is_accepted(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(calls(count=1_000_000, package="A" * 87_384))
    assert len(stored["spec"]["calls"]["package"]) == 87_384


def test_a_node_gets_no_defaults(kubernetes: Kubernetes) -> None:
    assert kubernetes.made(node())["spec"] == node()["spec"]


def test_metadata_of_an_unchangeable_node_can_change(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(node())
    changed = kubernetes.patched(
        stored, {"metadata": {"finalizers": ["skyward.dev/machine"], "labels": {"a": "b"}}}
    )
    assert changed["metadata"]["finalizers"] == ["skyward.dev/machine"]
    assert "finalizers" not in kubernetes.patched(stored, {"metadata": {"finalizers": None}})["metadata"]


@pytest.mark.parametrize(
    ("document", "change"),
    [
        (good_task(), {"suspend": True}),
        (good_task(), {"cancel": True}),
        (good_task(), {"parallelism": 4, "priority": 5, "ttlSecondsAfterFinished": 60}),
        (pool(), {"candidates": [{"name": "other", "provider": "aws"}]}),
        (pool(), {"candidates": [{"name": "here", "provider": "local", "accelerator": {"name": "L4"}}]}),
        (pool(), {"nodes": {"desired": 0}, "suspend": True, "image": {"pip": ["numpy"]}}),
    ],
)
def test_what_may_change_can_change(kubernetes: Kubernetes, document: Manifest, change: Manifest) -> None:
    kubernetes.patched(kubernetes.made(document), {"spec": change})


# scale


def test_scale_writes_desired_and_shows_the_nodes(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(pool(nodes={"desired": 1, "max": 4}))
    kubernetes.patched(
        stored, {"status": {"nodes": {"total": 1}, "selector": "skyward.dev/pool=x"}}, "/status"
    )
    scale = kubernetes.patched(stored, {"spec": {"replicas": 3}}, "/scale")
    assert scale["spec"]["replicas"] == 3
    assert scale["status"] == {"replicas": 1, "selector": "skyward.dev/pool=x"}


def test_scale_above_the_maximum_is_refused_with_the_remedy(kubernetes: Kubernetes) -> None:
    response = kubernetes.patch(kubernetes.made(pool(nodes={"max": 4})), {"spec": {"replicas": 9}}, "/scale")
    assert response.status_code == 422
    assert (
        "desired is 9 but max is 4: desired must be at most max; raise max first"
        in response.json()["message"]
    )


# status


@pytest.mark.parametrize(
    ("document", "conditions", "reasons", "phases"),
    [
        (pool(), POOL_CONDITIONS, PoolReason, PoolPhase),
        (node(), NODE_CONDITIONS, NodeReason, NodePhase),
        (good_task(), TASK_CONDITIONS, TaskReason, TaskPhase),
    ],
    ids=["pool", "node", "task"],
)
def test_every_phase_reason_and_condition_can_be_written(
    kubernetes: Kubernetes, document: Manifest, conditions: Any, reasons: Any, phases: Any
) -> None:
    stored = kubernetes.made(document)
    for reason, phase, state in zip(
        reasons, itertools.cycle(phases), itertools.cycle(["True", "False", "Unknown"]), strict=False
    ):
        written = [
            {
                "type": condition,
                "status": state,
                "reason": reason,
                "message": "x" * 4096,
                "observedGeneration": 1,
                "lastTransitionTime": "2026-11-22T03:50:00.123456Z",
            }
            for condition in conditions
        ]
        status = {"phase": phase, "reason": reason, "message": "m", "conditions": written}
        assert kubernetes.patched(stored, {"status": status}, "/status")["status"] == status


def test_a_condition_may_be_bare(kubernetes: Kubernetes) -> None:
    change = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": ""}]}}
    kubernetes.patched(kubernetes.made(pool()), change, "/status")


def test_a_status_patch_leaves_the_spec_alone(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(good_task())
    changed = kubernetes.patched(
        stored, {"spec": {"cancel": True}, "status": {"phase": "Running"}}, "/status"
    )
    assert changed["spec"]["cancel"] is False
    assert changed["metadata"]["generation"] == 1


def test_a_status_at_its_limits_is_accepted(kubernetes: Kubernetes) -> None:
    stored = kubernetes.made(good_task())
    status = {
        "counts": {"total": 100_000, "running": 0, "succeeded": 50_000, "failed": 50_000},
        "succeededIndexes": "0," * 153_599 + "1",
        "failedIndexes": "1," * 153_599 + "2",
        "result": {"package": "A" * 87_384, "value": {"any": [1, None, "x"]}},
        "error": {"kind": "User", "type": "ValueError", "traceback": "x" * 32_768, "message": "y" * 4096},
        "attempts": {"recent": [{"index": 1, "attempt": 1, "cause": "NodeLost"}] * 32},
    }
    assert kubernetes.patched(stored, {"status": status}, "/status")["status"] == status


# people


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("skp.spec.nodes.max", "Most nodes that queued calls may raise the pool to"),
        ("skp.spec.candidates.maxHourlyPrice", "in US dollars"),
        ("computenodes.spec.rank", "rank 0 is the head"),
        ("skt.spec.retry.onInterruption", "whose node was lost"),
        ("skt.spec.function", "A Python function with JSON arguments"),
    ],
)
def test_kubectl_explains_fields(kubectl: Callable[..., str], path: str, words: str) -> None:
    assert words in " ".join(kubectl("explain", path, "--api-version", "skyward.dev/v1alpha1").split())


def test_kubectl_shows_what_a_person_needs(kubernetes: Kubernetes, kubectl: Callable[..., str]) -> None:
    gpus = kubernetes.made(candidate())
    status = {
        "phase": "Provisioning",
        "reason": "Launching",
        "display": {"nodes": "0/2", "hardware": "8xH100 aws"},
    }
    kubernetes.patched(gpus, {"status": status}, "/status")
    stored = kubernetes.made(good_task())
    status = {
        "phase": "Running",
        "display": {"progress": "12/100", "duration": "1m12s"},
        "node": "gpus-0-1a2b",
    }
    kubernetes.patched(stored, {"status": status}, "/status")
    kubernetes.made(node())
    shown = kubectl("get", "skp,skn,skt")
    for words in (
        "PHASE",
        "HARDWARE",
        "$/H",
        "RANK",
        "PROGRESS",
        "0/2",
        "8xH100 aws",
        "12/100",
        "gpus-0-1a2b",
    ):
        assert words in shown
    assert "REASON" in kubectl("get", "skp", "-o", "wide")
    assert gpus["metadata"]["name"] in kubectl("get", "skyward")


def test_kubectl_waits_for_a_condition(kubernetes: Kubernetes, kubectl: Callable[..., str]) -> None:
    stored = kubernetes.made(good_task())
    done = {"type": "Succeeded", "status": "True", "reason": "Succeeded", "observedGeneration": 1}
    kubernetes.patched(stored, {"status": {"conditions": [done]}}, "/status")
    name = stored["metadata"]["name"]
    assert "condition met" in kubectl(
        "wait", "--for=condition=Succeeded", f"task.skyward.dev/{name}", "--timeout=10s"
    )


def test_kubectl_applies_a_manifest_that_a_person_writes(kubectl: Callable[..., str]) -> None:
    manifest = """
        apiVersion: skyward.dev/v1alpha1
        kind: Task
        metadata: {name: factorial}
        spec:
          poolRef: {name: gpus}
          function: {entrypoint: "math:factorial", args: [5]}
    """
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=manifest)


@pytest.mark.parametrize(("kind", "document"), [(NODE, node()), (TASK, good_task())], ids=["nodes", "tasks"])
def test_objects_are_found_by_their_pool(kubernetes: Kubernetes, kind: Kind, document: Manifest) -> None:
    kubernetes.made(document)
    kubernetes.made(
        {
            **document,
            "spec": {**document["spec"], "poolRef": {**document["spec"]["poolRef"], "name": "other"}},
        }
    )
    found = kubernetes.list(kind, fieldSelector="spec.poolRef.name=other")
    assert [each["spec"]["poolRef"]["name"] for each in found] == ["other"]


def test_candidates_of_two_owners_are_merged(kubectl: Callable[..., str], kubernetes: Kubernetes) -> None:
    def apply(owner: str, name: str) -> str:
        document = pool(name="shared", candidates=[{"name": name, "provider": "aws"}])
        return kubectl(
            "apply", "--server-side", "--field-manager", owner, "-f", "-", stdin=json.dumps(document)
        )

    apply("git", "one")
    apply("person", "two")
    [stored] = kubernetes.list(POOL)
    assert [each["name"] for each in stored["spec"]["candidates"]] == ["one", "two"]
