"""The operator: watches pools, nodes and tasks, buys machines, runs calls, and gives everything back."""

__version__ = "0.1.0"
