"""The roles of the contract on a real API server: enough for the work, and no more."""

from __future__ import annotations

import secrets
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.cluster.bad_manifests import good_task, node, pool

from skyward.contract.names import ACCOUNTS_SUFFIX, GATEWAY_PORT, GATEWAY_SERVICE, LEASE_NAME
from skyward.contract.rbac import GATEWAY, USER_ROLES, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import ControlPlane

ROLES = "/apis/rbac.authorization.k8s.io/v1"
SKYWARD = "/apis/skyward.dev/v1alpha1/namespaces"


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    headers = {"Authorization": f"Bearer {control_plane.token}"}
    with httpx.Client(base_url=control_plane.server, headers=headers, verify=context, timeout=30) as client:
        yield client


def may(client: httpx.Client, user: str, verb: str, resource: str, namespace: str, name: str = "") -> bool:
    """Ask the API server whether a user may do something; `resource` is group/plural[/subresource]."""
    group, plural, *sub = resource.split("/")
    attributes: dict[str, Any] = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    if sub:
        attributes["subresource"] = sub[0]
    if name:
        attributes["name"] = name
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    assert answer.status_code == 201, answer.text
    return bool(answer.json()["status"]["allowed"])


@pytest.fixture
def member(admin: httpx.Client, namespace: str) -> Callable[[Role], str]:
    """A factory: a new user with one role in the test's namespace."""

    def make(role: Role) -> str:
        user = f"user-{secrets.token_hex(4)}"
        document = {**role.document(), "metadata": {"name": f"{role.name}-{user}"}}
        assert admin.post(f"{ROLES}/clusterroles", json=document).status_code == 201
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": document["metadata"]["name"],
            },
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        }
        assert admin.post(f"{ROLES}/namespaces/{namespace}/rolebindings", json=binding).status_code == 201
        return user

    return make


def test_people_may_do_what_their_role_says(
    admin: httpx.Client, namespace: str, member: Callable[[Role], str]
) -> None:
    viewer, editor = (member(role) for role in USER_ROLES)
    matrix = {
        ("list", "skyward.dev/computepools"): (True, True),
        ("get", "skyward.dev/computepools/scale"): (True, True),
        ("watch", "skyward.dev/tasks"): (True, True),
        ("create", "skyward.dev/tasks"): (False, True),
        ("patch", "skyward.dev/computepools/scale"): (False, True),
        ("delete", "skyward.dev/computenodes"): (False, True),
        ("create", "skyward.dev/computenodes"): (False, False),
        ("patch", "skyward.dev/tasks/status"): (False, False),
        ("get", "/secrets"): (False, False),
    }
    for (verb, resource), expected in matrix.items():
        allowed = tuple(may(admin, user, verb, resource, namespace) for user in (viewer, editor))
        assert allowed == expected, (verb, resource)


def test_the_way_to_the_gateway_leads_nowhere_else(
    admin: httpx.Client, namespace: str, member: Callable[[Role], str]
) -> None:
    user = member(GATEWAY)
    service = f"{GATEWAY_SERVICE}:{GATEWAY_PORT}"
    for verb, resource, name, expected in (
        ("get", "/services/proxy", service, True),
        ("update", "/services/proxy", service, True),
        ("delete", "/services/proxy", service, False),
        ("get", "/services/proxy", "database:5432", False),
        ("get", "/services/proxy", GATEWAY_SERVICE, False),
        ("get", "/services", GATEWAY_SERVICE, False),
        ("get", "/pods/proxy", service, False),
        ("get", "coordination.k8s.io/leases", LEASE_NAME, True),
        ("update", "coordination.k8s.io/leases", LEASE_NAME, False),
        ("get", "coordination.k8s.io/leases", "another", False),
    ):
        assert may(admin, user, verb, resource, namespace, name) is expected, (verb, resource, name)


def test_the_operator_does_its_work_with_its_own_token(
    control_plane: ControlPlane, admin: httpx.Client, namespace: str
) -> None:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    headers = {"Authorization": f"Bearer {control_plane.operator_token}"}
    base = f"{SKYWARD}/{namespace}"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert admin.post(f"{base}/computepools", json=pool(name="gpus")).status_code == 201
    assert admin.post(f"{base}/tasks", json=good_task()).status_code == 201
    with httpx.Client(base_url=control_plane.server, headers=headers, verify=context, timeout=30) as operator:
        assert operator.get("/apis/skyward.dev/v1alpha1/computepools").status_code == 200
        assert operator.post(f"{base}/computenodes", json=node()).status_code == 201
        for path in ("computepools/gpus", "computenodes/bad", "tasks/bad"):
            status = operator.patch(
                f"{base}/{path}/status", headers=merge, json={"status": {"phase": "Ready"}}
            )
            assert status.status_code == 200, status.text
            mark = {"metadata": {"finalizers": ["skyward.dev/machine"]}}
            assert operator.patch(f"{base}/{path}", headers=merge, json=mark).status_code == 200
        assert operator.delete(f"{base}/tasks/bad").status_code == 200
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"a": "b"}}
        assert operator.post(f"/api/v1/namespaces/{namespace}/secrets", json=secret).status_code == 201
        assert operator.get(f"/api/v1/namespaces/{namespace}/secrets/key").status_code == 200
        assert operator.delete(f"/api/v1/namespaces/{namespace}/secrets/key").status_code == 200


def test_the_operator_may_not_do_more(control_plane: ControlPlane, namespace: str) -> None:
    context = ssl.create_default_context(cafile=str(control_plane.ca_file))
    headers = {"Authorization": f"Bearer {control_plane.operator_token}"}
    base = f"{SKYWARD}/{namespace}"
    leases = "/apis/coordination.k8s.io/v1/namespaces/skyward-system/leases"
    with httpx.Client(base_url=control_plane.server, headers=headers, verify=context, timeout=30) as operator:
        assert operator.post(f"{base}/computepools", json=pool()).status_code == 403
        assert operator.post(f"{base}/tasks", json=good_task()).status_code == 403
        assert operator.get("/api/v1/secrets").status_code == 403
        assert operator.get("/api/v1/pods").status_code == 403
        assert operator.get(f"{leases}/another").status_code == 403
        assert operator.get(f"{leases}/{LEASE_NAME}").status_code in (200, 404)
        maps = "/api/v1/namespaces/skyward-system/configmaps"
        assert operator.get(maps).status_code == 403
        assert operator.get(f"{maps}/another").status_code == 403
        assert operator.get(f"{maps}/{LEASE_NAME}{ACCOUNTS_SUFFIX}").status_code in (200, 404)
