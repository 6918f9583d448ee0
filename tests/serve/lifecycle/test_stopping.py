"""Signals and the drain of the launching process."""

import os
import signal

import pytest

from serve.lifecycle import stopping
from serve.lifecycle.stopping import drain_gateways, stop_signals


def raise_signal(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_stop_and_the_second_ends_at_once(number):
    before = signal.getsignal(number)
    with stop_signals() as signals:
        signal.signal(number, signal.SIG_IGN)  # as a library may do while the service starts
        signals.become_ready()
        raise_signal(number)
        assert signals.received.is_set()
        with pytest.raises(KeyboardInterrupt):
            raise_signal(number)
        signals.ignore()
        raise_signal(number)
    assert signal.getsignal(number) is before


def test_before_the_service_is_ready_one_signal_is_enough():
    with stop_signals(), pytest.raises(KeyboardInterrupt):
        raise_signal(signal.SIGTERM)


class Gateways:
    """The handle of gateways that have fewer requests open at each call."""

    def __init__(self, *num_open: list[object]) -> None:
        self.num_open = list(num_open)
        self.calls: list[str] = []

    def broadcast(self, method_name: str) -> "Gateways":
        self.calls.append(method_name)
        return self

    def results(self, *, timeout_s: float, return_exceptions: bool) -> list[object]:
        assert timeout_s > 0
        assert return_exceptions
        return self.num_open.pop(0) if len(self.num_open) > 1 else self.num_open[0]


@pytest.fixture
def drain(monkeypatch):
    monkeypatch.setattr(stopping, "_POLL_S", 0.01)
    monkeypatch.setattr(stopping, "_LAST_BYTES_S", 0.0)

    def run(gateways: Gateways, timeout_s: float = 10.0) -> tuple[int, list[str]]:
        monkeypatch.setattr(stopping.ray_serve, "get_app_handle", lambda _: gateways)
        said: list[str] = []
        return drain_gateways("sottovoce", timeout_s=timeout_s, say=said.append), said

    return run


def test_a_drain_waits_for_the_requests_of_all_gateways(drain):
    gateways = Gateways([5, 3], [0, 2], [0, RuntimeError("died")], [0])
    assert drain(gateways) == (0, ["requests in flight: 8; new ones are refused, and Ctrl-C again ends at once"])
    assert gateways.calls == ["drain"] * 3


def test_an_idle_service_says_nothing(drain):
    assert drain(Gateways([0, 0])) == (0, [])


def test_a_drain_is_bounded(drain):
    unanswered, _ = drain(Gateways([3]), timeout_s=0.05)
    assert unanswered == 3


def test_a_gateway_too_busy_to_answer_is_waited_for(drain):
    class Busy(Gateways):
        def results(self, **_: object) -> list[object]:
            if self.calls == ["drain"]:
                raise TimeoutError
            return [0]

    gateways = Busy()
    assert drain(gateways)[0] == 0
    assert len(gateways.calls) == 2


def test_a_service_without_gateways_needs_no_drain(drain, monkeypatch):
    class Gone(Gateways):
        def broadcast(self, method_name: str) -> Gateways:
            raise stopping.RayServeException("gone")

    assert drain(Gone()) == (0, [])
