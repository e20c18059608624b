"""What a fresh API server needs before Skyward can use it: kinds, a system namespace, the operator's rights.

Everything is server-side applied at every start, which writes nothing when nothing changed. The definitions
come from `skyward.contract`: the embedded control plane serves exactly what this version of the SDK speaks.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from skyward.contract.names import SYSTEM_NAMESPACE
from skyward.local.api import Api, ApiError, ApiUnavailable, Object
from skyward.local.tokens import OPERATOR_USER

POLL_SECONDS = 0.02
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_RBAC = "rbac.authorization.k8s.io"


def bootstrap(
    connect: Callable[[], Api],
    definitions: Sequence[Object],
    operator_rules: Sequence[Object],
    timeout: float = 30.0,
) -> None:
    """Apply everything and wait until the kinds are served and the default namespace exists.

    Args:
        connect: makes an administrator's connection; each thread needs its own.
        definitions: the CustomResourceDefinitions.
        operator_rules: the rules of the operator's ClusterRole.
        timeout: seconds for all of it.

    Raises:
        TimeoutError: naming what was not there in time.
        ApiError: the server refused a definition.
    """
    deadline = time.monotonic() + timeout
    jobs: list[Callable[[Api], None]] = [partial(_serve, deadline, definition) for definition in definitions]
    jobs.append(partial(_authorize_operator, deadline, operator_rules))
    jobs.append(partial(_wait_for_default_namespace, deadline))

    def run(job: Callable[[Api], None]) -> None:
        with connect() as api:
            job(api)

    with ThreadPoolExecutor(len(jobs), thread_name_prefix="skyward-bootstrap") as pool:
        for _ in pool.map(run, jobs):
            pass


def _serve(deadline: float, definition: Object, api: Api) -> None:
    spec, name = definition["spec"], definition["metadata"]["name"]
    path = f"{_CRDS}/{name}"
    _wait(deadline, name, partial(api.apply, path, definition))
    _wait(deadline, name, lambda: _is_established(api.get(path)))
    for version in spec["versions"]:  # established means accepted; served is when a list answers
        collection = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
        _wait(deadline, collection, partial(api.get, f"{collection}?limit=1"))


def _is_established(definition: Object | None) -> bool:
    conditions = (definition or {}).get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _wait_for_default_namespace(deadline: float, api: Api) -> None:
    _wait(deadline, "namespace default", partial(api.get, "/api/v1/namespaces/default"))


def _authorize_operator(deadline: float, rules: Sequence[Object], api: Api) -> None:
    named = {"metadata": {"name": OPERATOR_USER}}
    subject = {"kind": "User", "name": OPERATOR_USER, "apiGroup": _RBAC}
    role = {"kind": "ClusterRole", "name": OPERATOR_USER, "apiGroup": _RBAC}
    manifests: dict[str, Object] = {
        f"/api/v1/namespaces/{SYSTEM_NAMESPACE}": {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": SYSTEM_NAMESPACE},
        },
        f"/apis/{_RBAC}/v1/clusterroles/{OPERATOR_USER}": {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "rules": list(rules),
            **named,
        },
        f"/apis/{_RBAC}/v1/clusterrolebindings/{OPERATOR_USER}": {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "roleRef": role,
            "subjects": [subject],
            **named,
        },
    }
    for path, manifest in manifests.items():
        _wait(deadline, path, partial(api.apply, path, manifest))


def _wait(deadline: float, what: str, attempt: Callable[[], object]) -> None:
    """Try until `attempt` answers something true; a server that is still starting is no error."""
    while True:
        problem: Exception | str = "not there yet"
        try:
            if attempt():
                return
        except ApiUnavailable as error:
            problem = error
        except ApiError as error:
            if error.status < 500 and error.status not in (404, 409, 429):
                raise
            problem = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"the API server does not serve {what}: {problem}")
        time.sleep(POLL_SECONDS)
