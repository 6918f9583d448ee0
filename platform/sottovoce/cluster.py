"""The Ray cluster of a job: join it once, say what its token is for, and say when it has no room.

Ray itself waits without a word for resources that the cluster does not have, and advises to switch its authentication
off.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

logger = logging.getLogger(__name__)

_AUTHENTICATION_LOGGER = "ray._private.authentication.authentication_token_setup"
_ADVICE = "to opt out"  # Ray's, to switch the token off; its warning about a cluster without a token stays
_TOKEN_FILE = Path(".ray") / "auth_token"  # below the home folder; Ray's default
_PATIENCE_S = 8.0  # a job that waits for room says so within 10 s
_POLL_S = 0.5


def join_cluster(environment: Mapping[str, str] | None = None) -> None:
    """Connect this process to Ray, once: to the cluster it was submitted to or that runs here, else to a new one.

    Args:
        environment: set before Ray starts, so that what it starts here inherits it; values the user has set stay.
    """
    if ray.is_initialized():
        return
    for name, value in (environment or {}).items():
        os.environ.setdefault(name, value)
    with explained_token():
        ray.init()


@contextmanager
def explained_token() -> Iterator[None]:
    """Wrap a start of Ray: drop its advice to switch the token off, and say what a new token is for.

    A Ray that is started here turns token authentication on and makes a token where there is none. The explanation
    is logged when the token is made, so it appears once on a machine.
    """
    path = Path.home() / _TOKEN_FILE
    had_token = path.is_file()
    authentication = logging.getLogger(_AUTHENTICATION_LOGGER)
    authentication.addFilter(_is_no_advice)
    try:
        yield
    finally:
        authentication.removeFilter(_is_no_advice)
    if not had_token and path.is_file():
        logger.info(
            "Ray accepts jobs and connections only with the token in %s, made now: without it anyone who reaches Ray's "
            "ports could run code as you. Jobs on this machine find it by themselves; keep it secret",
            path,
        )


def _is_no_advice(record: logging.LogRecord) -> bool:
    return _ADVICE not in record.getMessage()


def describe_lack(asked: Mapping[str, float], present: Mapping[str, float]) -> str:
    """Compare the resources a job asks for with those that are there.

    Args:
        asked: amounts by Ray's names, as in ``{"CPU": 2.0, "GPU": 1.0}``.
        present: the same, of a cluster.

    Returns:
        The first that is short, as in ``2 GPU needed, 1 in the cluster``; empty if there is enough of all.
    """
    for kind, amount in asked.items():
        if amount > present.get(kind, 0.0):
            return f"{amount:g} {kind} needed, {present.get(kind, 0.0):g} in the cluster"
    return ""


@contextmanager
def explained_wait(who: str, asked: Mapping[str, float], *, has_started: Callable[[], bool]) -> Iterator[None]:
    """Wrap work on the cluster: log a warning within 10 s where it cannot be scheduled.

    Resources that the whole cluster lacks are named at once. Where others hold what is there, the warning comes if the
    work has not started after 8 s. The wait itself goes on: nodes may join and others may finish.

    Args:
        who: is to be scheduled, as in ``2 workers``.
        asked: the least it needs to start, by Ray's names.
        has_started: whether the work runs already; called from another thread.
    """
    lack = describe_lack(asked, ray.cluster_resources())  # type: ignore[no-untyped-call]
    if lack:
        logger.warning("no room for %s (%s); the job waits until more nodes join", who, lack)
        yield
        return
    if not describe_lack(asked, ray.available_resources()):  # type: ignore[no-untyped-call]
        yield
        return
    stopped = threading.Event()
    arguments = (who, asked, has_started, stopped)
    thread = threading.Thread(target=_explain_later, args=arguments, name="explained-wait", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _explain_later(
    who: str, asked: Mapping[str, float], has_started: Callable[[], bool], stopped: threading.Event
) -> None:
    waited_s = 0.0
    while waited_s < _PATIENCE_S:
        if stopped.wait(_POLL_S) or has_started():
            return
        waited_s += _POLL_S
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    parts = (
        f"{amount:g} {kind} needed, {free.get(kind, 0.0):g} of {cluster.get(kind, 0.0):g} free"
        for kind, amount in asked.items()
    )
    logger.warning("no room yet for %s (%s); the job waits until other jobs release some", who, "; ".join(parts))
