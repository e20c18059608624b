"""Tasks: from the object in the API server to calls on nodes, and back to a status."""

from skyward_operator.tasks.service import Tasks, Workload, build

__all__ = ["Tasks", "Workload", "build"]
