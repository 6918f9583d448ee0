"""The service as tests of HTTP run it: on Ray Serve, at a free port of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ports import free_port
from ray.util.state import list_actors

from serve.launch import start_service, stop_service
from serve.settings import ServeConfig


@contextmanager
def running_service(config: ServeConfig) -> Iterator[str]:
    """Serve inside the running Ray; gives the base URL for OpenAI's clients."""
    try:
        yield start_service(config, port=free_port())
    finally:
        stop_service()


def transcriber_pids() -> list[int]:
    """Processes of this test's own transcriber replicas."""
    own_ray = ray.get_runtime_context().gcs_address  # others may run on this machine
    actors = list_actors(address=own_ray, filters=[("state", "=", "ALIVE")])
    return [actor.pid for actor in actors if "Transcriber" in actor.class_name]
