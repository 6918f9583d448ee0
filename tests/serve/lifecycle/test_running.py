"""The life of the launching process, with everything it starts replaced."""

import os
import signal
import threading

import pytest

from serve.errors import ServiceLostError
from serve.lifecycle import running
from serve.lifecycle.running import run_service
from serve.settings import ServeConfig
from sottovoce.errors import ConfigError


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was called, in order; nothing starts."""
    calls: list[str] = []

    def record(name: str, answer: object = None) -> None:
        monkeypatch.setattr(running, name, lambda *_, **__: calls.append(name) or answer)

    for name in ("check_default_files", "start_ray", "stop_service", "stop_ray"):
        record(name)
    record("start_service", "http://127.0.0.1:1/v1")
    record("wait_for_loss")
    record("drain_gateways", 0)
    monkeypatch.setattr(running, "local_ray_processes", lambda: ["raylet"])
    return calls


def run(said: list[str] | None = None, **settings: object) -> None:
    lines: list[str] = [] if said is None else said
    run_service(ServeConfig(**settings), host="127.0.0.1", port=1, announce=lines.append, say=lines.append)


def test_a_service_is_drained_before_ray_ends(happened):
    said: list[str] = []
    run(said)
    assert happened[-3:] == ["wait_for_loss", "drain_gateways", "stop_ray"]
    assert said == ["http://127.0.0.1:1/v1"]


def test_in_a_ray_that_runs_on_the_service_is_stopped_by_itself(happened, monkeypatch):
    monkeypatch.setattr(running, "local_ray_processes", list)
    run()
    assert happened[-3:] == ["drain_gateways", "stop_service", "stop_ray"]


def test_a_lost_service_ends_the_process_with_an_error_and_without_a_drain(happened, monkeypatch):
    monkeypatch.setattr(running, "wait_for_loss", lambda *_, **__: "Ray's raylet has ended")
    with pytest.raises(ServiceLostError, match="raylet has ended, and the service with it; start it again"):
        run()
    assert "drain_gateways" not in happened
    assert happened[-1] == "stop_ray"


def test_requests_that_outlast_the_drain_are_counted(happened, monkeypatch):
    monkeypatch.setattr(running, "drain_gateways", lambda *_, **__: 3)
    said: list[str] = []
    run(said, drain_timeout_s=7.0)
    assert said[-1] == "3 requests were not answered within 7 s and are cut off"


def test_nothing_starts_where_the_cpus_do_not_fit(happened):
    with pytest.raises(ConfigError, match="num_threads 512 need 512 CPUs"):
        run(num_threads=512)
    assert happened == []


def test_a_signal_while_it_starts_leaves_nothing_running(happened, monkeypatch):
    monkeypatch.setattr(running, "start_service", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert happened[-1] == "stop_ray"


def test_a_second_signal_ends_a_drain(happened, monkeypatch):
    def drain(*_: object, **__: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    def wait(stopped: threading.Event, *_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.is_set()

    monkeypatch.setattr(running, "wait_for_loss", wait)
    monkeypatch.setattr(running, "drain_gateways", drain)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert happened[-1] == "stop_ray"
