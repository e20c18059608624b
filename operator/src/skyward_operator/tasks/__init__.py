"""Tasks: from the object in the API server to calls on nodes, and back to a status."""

from skyward_operator.tasks.service import Tasks, build
from skyward_operator.tasks.workload import Workload

__all__ = ["Tasks", "Workload", "build"]
