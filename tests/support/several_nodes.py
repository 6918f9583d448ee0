"""A cluster of several nodes on this machine, which come and go."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ports import free_port

DRAIN_S = 15


@dataclass
class Nodes:
    """A cluster on this machine: a head without room for workers, and nodes with room for one each."""

    cluster: Any

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=3)

    def lose(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def announce_end(self, node: Any) -> None:
        """Report Ray what a cloud tells it of a node it takes back."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.cluster.address]
        command += ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken"]
        subprocess.run([*command, "--deadline-remaining-seconds", str(DRAIN_S)], check=True, timeout=120)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"RAY_ADDRESS": self.cluster.address}


@contextmanager
def running_cluster() -> Iterator[Nodes]:
    """Start a head; nodes with room for workers are to be added."""
    from ray.cluster_utils import Cluster  # here: most runs of the tests need no Ray

    # Ray tries the dashboard's port even where it shows none, and leaks its try where it fails.
    head = {"num_cpus": 1, "include_dashboard": False, "dashboard_port": free_port()}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Nodes(cluster)
    finally:
        cluster.shutdown()
