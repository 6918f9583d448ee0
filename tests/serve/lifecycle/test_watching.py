"""What the launching process notices of its service."""

import http.server
import subprocess
import sys
import threading
import time

import psutil
import pytest
from ports import free_port

from serve.lifecycle import watching
from serve.lifecycle.watching import is_alive, local_ray_processes, proxy_serves, wait_for_loss


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_POLL_S", 0.01)


def test_a_process_of_ray_that_ended_is_a_loss_even_before_anyone_waited_for_it(sleeper):
    process = psutil.Process(sleeper.pid)
    assert is_alive(process)
    threading.Timer(0.1, sleeper.kill).start()
    lost = wait_for_loss(threading.Event(), lambda: True, processes=[process])
    assert lost is not None
    assert lost.endswith("has ended")
    assert not is_alive(process), "a zombie, or gone"


def test_a_service_that_stays_silent_is_lost_and_one_that_recovers_is_not():
    answers = iter([False, False, True, True])
    stopped = threading.Event()

    def serves() -> bool:
        try:
            return next(answers)
        except StopIteration:
            return False

    began = time.monotonic()
    lost = wait_for_loss(stopped, serves, processes=[], lost_after_s=0.3)
    assert lost == "Serve has not answered for 0.3 s"
    assert time.monotonic() - began >= 0.3


def test_a_stop_ends_the_watch_without_a_loss():
    stopped = threading.Event()
    threading.Timer(0.05, stopped.set).start()
    assert wait_for_loss(stopped, lambda: True, processes=[]) is None


def test_a_proxy_serves_when_its_routes_name_the_application():
    class Routes(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"/": "sottovoce"}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Routes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert proxy_serves("127.0.0.1", server.server_port, "sottovoce")
        assert not proxy_serves("127.0.0.1", server.server_port, "another")
        server.shutdown()
    assert not proxy_serves("127.0.0.1", free_port(), "sottovoce")


def test_without_a_ray_of_its_own_a_process_watches_none(sleeper):
    assert local_ray_processes() == []
