"""Reads and writes of Kubernetes objects, as plain dictionaries.

Every call has a deadline and retries what may succeed later; a Conflict is the caller's to solve, by
reading again and deciding again. Every write is fenced: the fence runs ahead of each attempt and
raises NotLeader when this process may not act any more. What a write answers goes to `observe`, so
that the writer sees its own writes without waiting for the watch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, overload

from skyward.contract.names import FIELD_MANAGER, Kind
from skyward_operator.kube.connection import (
    APPLY_PATCH,
    MERGE_PATCH,
    Connection,
    Failed,
    Patience,
    Request,
)
from skyward_operator.kube.errors import AlreadyExists, ApiError, Expired, NotFound
from skyward_operator.kube.kinds import collection_path, describe, object_path
from skyward_operator.kube.merge import contains, merged

type Object = dict[str, Any]
type Objects = list[Object]
type Fence = Callable[[], None]
type Observer = Callable[[Kind, Object], object]
type Propagation = Literal["Background", "Foreground", "Orphan"]

_PAGE: Final = 500
_LISTING_ATTEMPTS: Final = 3
_MANAGER: Final = {"fieldManager": FIELD_MANAGER}


class Api:
    """The API server, as the operator's parts use it."""

    def __init__(
        self,
        connection: Connection,
        *,
        fence: Fence | None = None,
        observe: Observer | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._connection = connection
        self._fence = fence
        self._observe = observe
        self._patience = patience

    def with_fence(self, fence: Fence | None, observe: Observer | None = None) -> Api:
        """The same connection with another fence and observer."""
        return Api(self._connection, fence=fence, observe=observe, patience=self._patience)

    def with_patience(self, patience: Patience) -> Api:
        """The same, with other deadlines."""
        return Api(self._connection, fence=self._fence, observe=self._observe, patience=patience)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object as the API server has it now; raises NotFound."""
        return await self._send(
            Request(
                "get", "GET", object_path(kind, namespace, name), describe(kind, namespace, name), kind.plural
            )
        )

    async def list(self, kind: Kind, namespace: str | None = None, labels: str = "") -> tuple[Objects, str]:
        """All objects of a kind at one moment, read in pages, and that moment's resourceVersion."""
        for _ in range(_LISTING_ATTEMPTS - 1):
            try:
                return await self._list(kind, namespace, labels)
            except Expired:
                # Reading the pages took longer than the server keeps their moment.
                continue
        return await self._list(kind, namespace, labels)

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        """The created object. `apiVersion` and `kind` may be left out.

        When the answer to an attempt was lost and the next one meets AlreadyExists, the object is read
        back: if it holds everything that was sent, it is ours and is returned. Otherwise AlreadyExists.
        """
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace"), metadata.get("name")
        what = describe(kind, namespace, name)
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | dict(obj)
        request = Request(
            "create", "POST", collection_path(kind, namespace), what, kind.plural, _MANAGER, body
        )
        try:
            created = (await self._connection.send(request, before=self._fence, patience=self._patience)).body
        except Failed as failed:
            if not isinstance(failed.error, AlreadyExists) or not failed.earlier_attempts:
                raise failed.error from failed.__cause__
            created = await self._ours(kind, namespace, str(name), body, failed.error)
        return self._seen(kind, created)

    @overload
    async def patch_status(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        status: Mapping[str, Any],
        *,
        resource_version: str | None = None,
    ) -> Object: ...

    @overload
    async def patch_status(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        status: Mapping[str, Any],
        *,
        resource_version: str | None = None,
        current: Mapping[str, Any] | None,
    ) -> Object | None: ...

    async def patch_status(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        status: Mapping[str, Any],
        *,
        resource_version: str | None = None,
        current: Mapping[str, Any] | None = None,
    ) -> Object | None:
        """Merge `status` (JSON merge patch: None removes, lists are replaced) into the object's status.

        With `resource_version` it fails with Conflict when the object has moved on. With `current`, the
        status as it is known, nothing is sent and None returned where the merge would change nothing.
        """
        if current is not None and merged(current, status) == dict(current):
            return None
        path = object_path(kind, namespace, name) + "/status"
        return await self._patch(
            "patch status", path, kind, (namespace, name), {"status": status}, resource_version
        )

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        resource_version: str | None = None,
    ) -> Object:
        """Merge `body` (JSON merge patch) into the object; Conflict as for `patch_status`."""
        path = object_path(kind, namespace, name)
        return await self._patch("patch", path, kind, (namespace, name), body, resource_version)

    async def apply(
        self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any], *, force: bool = True
    ) -> Object:
        """Server-side apply: create the object, or own exactly the fields that `body` names."""
        whole = {"apiVersion": kind.api_version, "kind": kind.kind} | dict(body)
        request = Request(
            "apply",
            "PATCH",
            object_path(kind, namespace, name),
            describe(kind, namespace, name),
            kind.plural,
            _MANAGER | {"force": "true" if force else "false"},
            whole,
            APPLY_PATCH,
        )
        return self._seen(kind, await self._send(request, write=True))

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
    ) -> None:
        """Ask for the object's deletion; already gone is success.

        With `uid` or `resource_version` it fails with Conflict when another object has that name, or
        the object moved on. Finalizers may keep the object for a while.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if given := {key: value for key, value in preconditions.items() if value is not None}:
            body["preconditions"] = given
        if propagation is not None:
            body["propagationPolicy"] = propagation
        path, what = object_path(kind, namespace, name), describe(kind, namespace, name)
        try:
            answer = await self._send(
                Request("delete", "DELETE", path, what, kind.plural, None, body), write=True
            )
        except NotFound:
            return
        if answer.get("kind") == kind.kind:
            self._seen(kind, answer)

    async def _patch(
        self,
        verb: str,
        path: str,
        kind: Kind,
        key: tuple[str | None, str],
        body: Mapping[str, Any],
        resource_version: str | None,
    ) -> Object:
        if resource_version is not None:
            metadata = dict(body.get("metadata", {})) | {"resourceVersion": resource_version}
            body = dict(body) | {"metadata": metadata}
        request = Request(verb, "PATCH", path, describe(kind, *key), kind.plural, _MANAGER, body, MERGE_PATCH)
        return self._seen(kind, await self._send(request, write=True))

    async def _list(self, kind: Kind, namespace: str | None, labels: str) -> tuple[Objects, str]:
        path, what = collection_path(kind, namespace), describe(kind, namespace)
        objects: Objects = []
        params = {"limit": str(_PAGE)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._send(Request("list", "GET", path, what, kind.plural, params))
            # Items of a list come without the two fields that every object has elsewhere.
            identity = {"apiVersion": kind.api_version, "kind": kind.kind}
            objects.extend(identity | item for item in page.get("items") or ())
            metadata = page["metadata"]
            if not (token := metadata.get("continue")):
                return objects, str(metadata["resourceVersion"])
            params["continue"] = token

    async def _ours(
        self, kind: Kind, namespace: str | None, name: str, body: Object, error: ApiError
    ) -> Object:
        try:
            existing = await self.get(kind, namespace, name)
        except NotFound:
            raise error from None
        if contains(existing, body):
            return existing
        raise error

    async def _send(self, request: Request, *, write: bool = False) -> Object:
        try:
            answer = await self._connection.send(
                request, before=self._fence if write else None, patience=self._patience
            )
        except Failed as failed:
            raise failed.error from failed.__cause__
        return answer.body

    def _seen(self, kind: Kind, obj: Object) -> Object:
        if self._observe is not None:
            self._observe(kind, obj)
        return obj
