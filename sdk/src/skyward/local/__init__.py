"""The embedded control plane: a real etcd, a real kube-apiserver and the operator, as processes of this user.

It exists so that a person without a cluster uses the same kinds, operator, agent and link as one in a cloud.
`ensure` starts it or joins the one that runs, `find` only looks, and both answer with an `Endpoint`. Nothing
in here may run in a cluster, listen beyond the loopback interface, or open a port without credentials.
"""

from skyward.local.endpoint import Endpoint
from skyward.local.plane import ensure, find
from skyward.local.progress import Report, Step

__all__ = ["Endpoint", "Report", "Step", "ensure", "find"]
