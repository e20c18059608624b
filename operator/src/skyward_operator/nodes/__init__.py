"""Nodes: one machine each, from its launch to the proof that it is gone."""
