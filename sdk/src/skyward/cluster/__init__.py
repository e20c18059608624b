"""The SDK's talk with the API server and the operator's gateway: the only importer of httpx and kubernetes.

Synchronous and thread-safe: calls are made from whatever thread the user's code runs in, and each watch has a
thread of its own, so that scripts, event loops and notebooks are served alike.
"""
