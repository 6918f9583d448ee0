"""Twenty deaths of a service's processes under load. Five hundred: ``benchmarks/serve_kills.py``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_service import running_service

from benchmarks.serve_kills import ServeKills, run_kills
from benchmarks.service_killer import TITLES
from serve.settings import Autoscaling, ServeConfig

pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]

NUM_KILLS = 20


@pytest.fixture(scope="module")
def base_url(tiny_export: Path, local_ray: str) -> Iterator[str]:
    scaling = Autoscaling(min_replicas=2, max_replicas=2)
    with running_service(ServeConfig(model=str(tiny_export), variant="fp32", transcriber_scaling=scaling)) as url:
        yield url


def test_no_request_is_lost_when_any_process_dies(base_url: str, tmp_path: Path) -> None:
    settings = ServeKills(num_kills=NUM_KILLS, max_s=300.0, pause_s=0.5, num_clients=4, output=tmp_path / "result.json")
    (*kinds, requests), lost = run_kills(base_url, settings)
    assert not lost
    assert requests["different_text"] == 0
    assert [row["killed"] for row in kinds] == list(TITLES)
    assert sum(row["kills"] for row in kinds) == NUM_KILLS
