"""Ephemeral GPU compute that feels like a function call and is run like infrastructure."""

__version__ = "0.1.0"
