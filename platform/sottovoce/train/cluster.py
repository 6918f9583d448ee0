"""The Ray cluster a run trains on."""

import ray

from sottovoce.train.scaling import set_up_environment


def join_cluster() -> None:
    """Connect this process to Ray, once: to the cluster it was submitted to or that runs here, else to a new one."""
    if not ray.is_initialized():
        set_up_environment()  # what Ray starts here inherits it
        ray.init()
