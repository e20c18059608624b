"""Fixtures of this layer that several modules use."""

from tests.fake.sdk_plane import plane as plane
