"""The embedded control plane from outside: what a person and a program see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import ControlPlane


def test_kinds_are_served_when_the_control_plane_is_up(control_plane: ControlPlane, namespace: str) -> None:
    with control_plane.api() as api:
        answer = api.get(f"/apis/skyward.dev/v1alpha1/namespaces/{namespace}/computepools")
    assert answer is not None
    assert answer["items"] == []


def test_data_are_kept_when_the_api_server_restarts(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.restart_api_server()
    with control_plane.api() as api:
        assert api.get(f"/api/v1/namespaces/{namespace}") is not None
