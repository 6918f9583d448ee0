"""Does the service lose a request when its processes are killed under load, and how soon does it answer again?

``python -m benchmarks.serve_kills --num-kills 500 --max-s 1800 --output FILE`` starts the service, keeps clients busy
with it, and kills gateways, transcribers, the proxy and the controller by SIGKILL, at random. Each answer is compared
with the one that the same recording had before. Only a death of the proxy may be seen, as a connection error.
"""

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import ray
import soundfile
from pydantic import Field

from benchmarks.closed_loop import ClosedLoop, Outcome, ask, percentile
from benchmarks.common import Row, print_table, write_result
from benchmarks.service_killer import TITLES, Kill, Kind, kill_at_random, summarize
from serve.launch import start_ray, start_service
from serve.settings import ServeConfig
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.schema import SAMPLING_RATE

_HOST = "127.0.0.1"
_NUM_RECORDINGS = 8
_LONGEST_S = 9.0
_CONNECTING_S = 1.0  # a client may find the old connection dead a moment after the proxy is back


class ServeKills(Config):
    """How many processes die, of which service, under which load."""

    service: ServeConfig = ServeConfig(embedded_until_promoted=True)
    kinds: tuple[Kind, ...] = tuple(TITLES)
    """Who may die."""
    num_kills: int = Field(default=500, ge=1)
    max_s: float = Field(default=1_800.0, gt=0.0)
    """Seconds after which nobody dies any more."""
    pause_s: float = Field(default=2.0, ge=0.0)
    """Longest pause between a recovery and the next death."""
    waits_until_whole: bool = False
    """Wait until a killed process was replaced before the next one dies; only then its recovery is measured."""
    num_clients: int = Field(default=8, ge=1)
    port: int = 8000
    seed: int = 0
    """Of who dies when."""
    output: Path
    """JSON file that receives the result."""


def run_kills(base_url: str, settings: ServeKills) -> tuple[list[Row], list[Outcome]]:
    """Kill processes of a running service under load.

    Returns:
        A row for each kind and one for the requests, and the requests that were lost.
    """
    loop = ClosedLoop(base_url, make_recordings())
    with httpx.Client(timeout=120.0) as client:
        expected = [ask(client, base_url, loop.recordings, number).text for number in range(len(loop.recordings))]
    started = time.monotonic()
    with loop.running(settings.num_clients):
        kills = kill_at_random(
            loop.probe,
            kinds=settings.kinds,
            num_kills=settings.num_kills,
            pause_s=settings.pause_s,
            max_s=settings.max_s,
            waits_until_whole=settings.waits_until_whole,
            seed=settings.seed,
        )
    lost = find_lost(loop.outcomes, kills)
    answered = [outcome for outcome in loop.outcomes if outcome.status == httpx.codes.OK]
    latencies = [outcome.latency_s for outcome in answered]
    requests: Row = {
        "killed": "all",
        "kills": len(kills),
        "seconds": round(time.monotonic() - started, 1),
        "clients": settings.num_clients,
        "requests": len(loop.outcomes),
        "answered": len(answered),
        "lost": len(lost),
        "connection_errors_by_proxy_deaths": len(loop.outcomes) - len(answered) - len(lost),
        "different_text": sum(outcome.text != expected[outcome.recording] for outcome in answered),
        "latency_s": {
            "p50": round(percentile(latencies, 50), 2),
            "p99": round(percentile(latencies, 99), 2),
            "max": round(max(latencies), 2),
        },
    }
    return [*summarize(kills), requests], lost


def find_lost(outcomes: Sequence[Outcome], kills: Sequence[Kill]) -> list[Outcome]:
    """Return the requests without an answer, except connections that failed because the proxy was dead."""
    outages = [(kill.at_s, kill.at_s + kill.answers_after_s + _CONNECTING_S) for kill in kills if kill.kind == "proxy"]
    return [
        outcome
        for outcome in outcomes
        if outcome.status != httpx.codes.OK
        and not (
            outcome.status is None
            and any(outcome.started_s <= end and outcome.ended_s >= start for start, end in outages)
        )
    ]


def make_recordings() -> list[bytes]:
    """Make WAV files of 2 to 9 s, in voices the embedded model was not trained on."""
    files = []
    for sentence in speak_timed(_NUM_RECORDINGS, voices=UNSEEN_VOICES, max_s=_LONGEST_S, seed=3):
        file = io.BytesIO()
        soundfile.write(file, sentence.waveform, SAMPLING_RATE, format="WAV", subtype="PCM_16")
        files.append(file.getvalue())
    return files


def main(settings: ServeKills) -> None:
    """Run it, write its result, and exit with status 1 if a request was lost."""
    setup_logging()
    start_ray(host=_HOST)
    base_url = start_service(settings.service, host=_HOST, port=settings.port)
    results, lost = run_kills(base_url, settings)
    ray.shutdown()
    write_result(settings.output, "Which requests are lost when the service's processes are killed?", results)
    print_table("Killed under load: the service answers again, and is whole again", results[:-1])
    print_table("Requests", results[-1:])
    for outcome in lost:
        sys.stderr.write(f"lost: status {outcome.status}, after {outcome.latency_s:.2f} s: {outcome.text[:300]}\n")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main(load_config(ServeKills))
