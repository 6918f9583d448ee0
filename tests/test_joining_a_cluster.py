"""What a job says about the cluster it joins: its token, and that there is no room."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from sottovoce import cluster
from sottovoce.cluster import describe_lack, explained_token, explained_wait

AUTHENTICATION = logging.getLogger("ray._private.authentication.authentication_token_setup")
ADVICE = "Token authentication is enabled for this Ray cluster. Set RAY_AUTH_MODE=disabled to opt out. For more"
WARNING = "Token authentication is disabled for this Ray cluster. Anyone with network access to the cluster can"


def test_ray_still_logs_its_advice_where_it_is_dropped() -> None:
    """Should a release of Ray say it elsewhere or in other words, this fails."""
    from ray._private.authentication import authentication_token_setup as setup

    assert setup.logger is AUTHENTICATION
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    AUTHENTICATION.addHandler(handler)
    try:
        setup._warn_token_auth_enabled()
        with explained_token():
            setup._warn_token_auth_enabled()
            setup._warn_token_auth_disabled()
    finally:
        AUTHENTICATION.removeHandler(handler)
    assert [record.split(".")[0] for record in records] == [ADVICE.split(".")[0], WARNING.split(".")[0]]


def test_what_the_token_is_for_is_said_when_it_is_made_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    caplog.set_level(logging.INFO)
    path = tmp_path / ".ray" / "auth_token"
    for _ in range(2):
        with explained_token():
            path.parent.mkdir(exist_ok=True)
            path.write_text("secret", encoding="utf-8")
    (message,) = caplog.messages
    assert str(path) in message
    assert "could run code as you" in message
    assert "secret" not in message.replace("keep it secret", "")


def test_what_the_user_set_for_rays_processes_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"A": "mine"}
    monkeypatch.setattr(cluster.os, "environ", environment)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.Path, "home", lambda: Path("/nowhere"))
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda: seen.append(dict(environment)))
    cluster.join_cluster({"A": "ours", "B": "ours"})
    assert seen == [{"A": "mine", "B": "ours"}]


def test_the_first_resource_that_is_short_is_named() -> None:
    assert describe_lack({"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0}) == "1 GPU needed, 0 in the cluster"
    assert describe_lack({"CPU": 2.0}, {"CPU": 2.0}) == ""


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Wait for 2 CPUs on a cluster of these, for some hundredths of a second."""
    monkeypatch.setattr(cluster, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(cluster, "_POLL_S", 0.01)

    def run(*, total: float, free: float, starts: bool) -> None:
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": total})
        monkeypatch.setattr(cluster.ray, "available_resources", lambda: {"CPU": free})
        with explained_wait("2 workers", {"CPU": 2.0}, has_started=lambda: starts):
            for thread in cluster.threading.enumerate():
                if thread.name == "explained-wait":
                    thread.join(5.0)

    return run


def test_what_the_whole_cluster_lacks_is_said_at_once(
    wait: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    wait(total=1.0, free=1.0, starts=False)
    assert caplog.messages == [
        "no room for 2 workers (2 CPU needed, 1 in the cluster); the job waits until more nodes join"
    ]


def test_what_other_jobs_hold_is_said_after_a_while(
    wait: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    wait(total=4.0, free=0.5, starts=False)
    assert caplog.messages == [
        "no room yet for 2 workers (2 CPU needed, 0.5 of 4 free); the job waits until other jobs release some"
    ]


def test_a_job_with_room_or_that_starts_soon_says_nothing(
    wait: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    wait(total=4.0, free=2.0, starts=False)
    wait(total=4.0, free=0.5, starts=True)
    assert caplog.messages == []


def test_the_warning_comes_within_ten_seconds() -> None:
    assert cluster._PATIENCE_S + cluster._POLL_S < 10.0
