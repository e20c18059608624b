"""The operator's talk with the Kubernetes API server: reads, writes, intake, leadership, events."""
