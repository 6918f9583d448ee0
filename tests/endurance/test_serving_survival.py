"""The service under load while its processes die, while it is deployed again, and while its replicas come and go.

Five hundred kills: ``benchmarks/serve_kills.py``, which ``make endurance`` runs.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_service import running_service

from benchmarks.closed_loop import ClosedLoop
from benchmarks.serve_kills import ServeKills, make_recordings, run_kills
from benchmarks.service_killer import TITLES, service_processes
from serve import app
from serve.launch import start_service
from serve.settings import Autoscaling, Limits, ServeConfig

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

NUM_KILLS = 20
SCALING_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def base_url(micro_assets: Path, local_ray: str) -> Iterator[str]:
    scaling = Autoscaling(min_replicas=2, max_replicas=2)
    with running_service(ServeConfig(model=str(micro_assets), variant="torch", transcriber_scaling=scaling)) as url:
        yield url


def test_no_request_is_lost_when_any_process_dies(base_url, tmp_path):
    settings = ServeKills(num_kills=NUM_KILLS, max_s=900.0, pause_s=1.0, num_clients=4, output=tmp_path / "result.json")
    (*kinds, requests), lost = run_kills(base_url, settings)
    assert not lost
    assert requests["different_text"] == 0
    assert [row["killed"] for row in kinds] == list(TITLES)
    assert sum(row["kills"] for row in kinds) == NUM_KILLS


@pytest.fixture
def deploy(base_url: str, micro_assets: Path, monkeypatch: pytest.MonkeyPatch):
    """Deploy the shared service again with another scaling of its transcribers."""
    monkeypatch.setattr(app, "_LOOK_BACK_S", 2.0)

    def run(min_replicas: int, max_replicas: int) -> None:
        scaling = Autoscaling(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            target_ongoing_requests=2.0,
            upscale_delay_s=0.5,
            downscale_delay_s=2.0,
        )
        config = ServeConfig(
            model=str(micro_assets),
            variant="torch",
            limits=Limits(max_body_bytes=2 * 2**20, max_duration_s=50.0),
            transcriber_scaling=scaling,
        )
        start_service(config, port=int(base_url.split(":")[2].split("/")[0]))

    return run


def wait_for_transcribers(count: int) -> None:
    until = time.monotonic() + SCALING_TIMEOUT_S
    while (found := len(service_processes("transcriber"))) != count:
        assert time.monotonic() < until, f"{found} transcribers, not {count}"
        time.sleep(0.2)


@pytest.mark.filterwarnings("ignore:`look_back_period_s`:FutureWarning")  # the metrics come sooner here
def test_replicas_follow_the_load_and_a_deployment_changes_without_a_failed_request(base_url, deploy):
    loop = ClosedLoop(base_url, make_recordings())
    with loop.running(2):
        deploy(1, 3)
        wait_for_transcribers(1)
    with loop.running(16):
        wait_for_transcribers(3)
    with loop.running(1):
        wait_for_transcribers(1)
    assert {outcome.status for outcome in loop.outcomes} == {200}


@pytest.mark.filterwarnings("ignore:`look_back_period_s`:FutureWarning")
def test_without_requests_no_transcriber_runs_and_the_next_request_waits_for_one(base_url, deploy):
    deploy(0, 1)
    wait_for_transcribers(0)
    loop = ClosedLoop(base_url, make_recordings())
    assert loop.probe()
    wait_for_transcribers(1)
