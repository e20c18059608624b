"""Whether the API server serves the schema that this operator was built for.

An operator that writes a status field which the served CRD does not have loses it without a word
(the API server prunes it). So nothing acts before the versions match.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from skyward.contract.names import ANNOTATION_SCHEMA, KINDS, SCHEMA_VERSION
from skyward_operator.kube.errors import ApiError, Forbidden, NotFound
from skyward_operator.kube.kinds import CRD

if TYPE_CHECKING:
    from collections.abc import Callable

    from skyward.contract.names import Kind
    from skyward_operator.engine.clock import Clock
    from skyward_operator.kube.api import Api

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_REMEDY: Final = "apply the CRDs of this release: `kubectl apply --server-side -f crds/`"


async def wait_for_schema(api: Api, clock: Clock, tell: Callable[[str], None]) -> None:
    """Wait until all three kinds are served in our version; `tell` hears why not, on each change."""
    told = ""
    while (obstacle := await find_obstacle(api)) is not None:
        if obstacle != told:
            logger.warning("not acting: %s", obstacle)
            tell(obstacle)
            told = obstacle
        await clock.sleep(_LOOK_SECONDS)
    if told:
        logger.info("the CRDs are there")


async def find_obstacle(api: Api) -> str | None:
    """Why the operator must not act on this API server, or None."""
    for kind in KINDS:
        try:
            crd = await api.get(CRD, None, kind.crd_name)
        except NotFound:
            return f"the CRD {kind.crd_name} is missing; {_REMEDY}"
        except Forbidden as error:
            return f"{error}; the operator's ClusterRole must allow reading CRDs"
        except ApiError as error:
            return str(error)
        if (obstacle := _obstacle_of(kind, crd)) is not None:
            return obstacle
    return None


def _obstacle_of(kind: Kind, crd: dict[str, Any]) -> str | None:
    version = (crd["metadata"].get("annotations") or {}).get(ANNOTATION_SCHEMA)
    if version != SCHEMA_VERSION:
        found = f"schema version {version}" if version else "no schema version"
        return f"the CRD {kind.crd_name} has {found}, this operator needs {SCHEMA_VERSION}; {_REMEDY}"
    conditions = (crd.get("status") or {}).get("conditions") or ()
    states = {str(condition["type"]): str(condition["status"]) for condition in conditions}
    if states.get("Established") != "True":
        return f"the CRD {kind.crd_name} is not established yet"
    return None
