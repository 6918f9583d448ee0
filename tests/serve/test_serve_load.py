"""The load benchmark's clients and report, against services that are functions."""

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from benchmarks.load_clients import Load, Outcome, build_client
from benchmarks.load_recordings import Upload, draw_uploads, read_uploads
from benchmarks.load_report import MemorySample, summarize, summarize_memory, write_plot
from sottovoce.errors import ConfigError

UPLOAD = Upload("a", "utterance", 2.0, b"audio")


def run(
    answer: Callable[[httpx.Request], httpx.Response],
    use: Callable[[Load, httpx.AsyncClient], object],
    duration_s: float = 0.2,
) -> Load:
    """Load a service that is a function."""

    def build() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service/v1")

    async def main() -> Load:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: text_answer())) as client:
            await client.post(
                "http://service", files={"file": b"x"}
            )  # the first request imports for a third of a second
        load = Load(build, itertools.repeat(UPLOAD), model="m", duration_s=duration_s)
        async with build() as client:
            await use(load, client)
        return load

    return asyncio.run(main())


def text_answer(text: str = "hello") -> httpx.Response:
    return httpx.Response(200, json={"text": text})


def refusal(status: int = 503, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": "overloaded"}}, headers=headers)


def test_clients_of_a_closed_loop_wait_for_each_answer():
    at_once, most = 0, 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return text_answer()

    load = run(answer, lambda load, _: load.run_closed(3))
    assert most == 3
    assert len(load.outcomes) >= 6
    assert all(one.is_answered and one.is_same for one in load.outcomes)


def test_a_refused_client_comes_back_when_it_was_told_to():
    answers = iter([refusal(**{"retry-after": "0.1"}), *[text_answer()] * 1000])
    load = run(lambda _: next(answers), lambda load, _: load.run_closed(1))
    first, second = load.outcomes[:2]
    assert (first.is_refused, first.is_lost, first.reason) == (True, False, "overloaded")
    assert second.started_s >= first.started_s + 0.1


def test_an_open_loop_sends_whether_or_not_there_are_answers():
    async def answer(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.3)
        return text_answer()

    load = run(answer, lambda load, _: load.run_open(100.0, seed=0))
    assert len(load.outcomes) > 5
    assert all(one.started_s < 0.2 for one in load.outcomes)


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("gone", request=request)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (broken, "ReadError"),
        (lambda _: refusal(), "overloaded"),
        (lambda _: httpx.Response(500, text="oops"), "status 500 without an error"),
    ],
    ids=["connection", "no-retry-after", "500"],
)
def test_what_is_neither_answered_nor_refused_properly_is_lost(answer, reason):
    load = run(answer, lambda load, client: load.send_one(client))
    (outcome,) = load.outcomes
    assert (outcome.is_lost, outcome.reason) == (True, reason)


def test_a_recording_that_gets_another_text_is_counted():
    texts = iter(["one", "one", "two"])

    async def thrice(load: Load, client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await load.send_one(client)

    load = run(lambda _: text_answer(next(texts)), thrice)
    assert [one.is_same for one in load.outcomes] == [True, True, False]
    assert summarize(load.outcomes, deadline_s=300.0)[0]["other_texts"] == 1


def outcome(seconds: float, status: int = 200, group: str = "utterance", **fields: object) -> Outcome:
    return Outcome(
        **{"group": group, "audio_s": 10.0, "started_s": 0.0, "seconds": seconds, "status": status, **fields}
    )


def test_rows_hold_counts_reasons_percentiles_and_speed_by_length():
    refused = {"reason": "overloaded", "retry_after_s": 1.0}
    outcomes = [outcome(float(s)) for s in range(1, 101)] + [
        outcome(0.5, 503, **refused),
        outcome(3.0, 0, reason="ReadError"),
    ]
    everything, short, minute = summarize([*outcomes, outcome(400.0, group="minute")], deadline_s=300.0)
    assert [row["what"] for row in (everything, short, minute)] == ["all", "utterance", "minute"]
    assert (short["requests"], short["answered"], short["refused"], short["lost"]) == (102, 100, 1, 1)
    assert short["reasons"] == {"503 overloaded": 1, "0 ReadError": 1}
    assert short["answered_s"] == {"p50": 50.5, "p90": 90.1, "p95": 95.05, "p99": 99.01, "p100": 100.0}
    assert short["refused_s"]["p100"] == 0.5
    assert (everything["audio_s"], everything["rtfx"], everything["late"]) == (1010.0, round(1010 / 400, 2), 1)


def test_the_deadline_grows_with_the_recording():
    answers = [outcome(330.0, audio_s=300.0), outcome(330.0)]
    assert summarize(answers, deadline_s=300.0, deadline_per_audio_s=0.5)[0]["late"] == 1


def test_memory_grows_from_after_the_warm_up_to_the_end():
    samples = [MemorySample(float(s), {"Gateway": 100 * 2**20, "Transcriber": (150 + s) * 2**20}) for s in range(101)]
    gateway, transcriber = summarize_memory(samples)
    assert (gateway["growth"], gateway["mib_peak"]) == (0.0, 100.0)
    assert (transcriber["mib_after_warm_up"], transcriber["mib_at_end"], transcriber["mib_peak"]) == (
        165.0,
        245.0,
        250.0,
    )
    assert transcriber["growth"] == pytest.approx(245 / 165 - 1, abs=1e-4)
    assert len(transcriber["samples"]) == 101
    assert summarize_memory([]) == []


def test_the_plot_is_an_svg_file(tmp_path):
    samples = [MemorySample(0.0, {"Gateway": 1, "Transcriber": 2}), MemorySample(9.0, {"Gateway": 1, "Transcriber": 2})]
    write_plot(tmp_path / "load.svg", [outcome(1.0), outcome(0.1, 0), outcome(2.0, group="minute")], samples)
    assert (tmp_path / "load.svg").read_text().startswith("<?xml")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).normal(scale=0.1, size=32_000), 16_000)
    (tmp_path / "c.wav").write_bytes(b"no audio")
    rows = [json.dumps({"audio": f"{name}.wav"}) for name in "abc"]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_recordings_are_utterances_as_they_are_and_some_joined_to_minutes(recordings):
    uploads = read_uploads(recordings, seed=0)
    assert [(one.group, one.audio_s) for one in uploads] == [
        ("utterance", 2.0),
        ("utterance", 2.0),
        ("minute", 60.0),
        ("5 minutes", 300.0),
    ]
    assert uploads[0].data == (recordings / "a.wav").read_bytes()
    drawn = [one.group for one in itertools.islice(draw_uploads(uploads, seed=0), 1000)]
    assert {group: drawn.count(group) for group in set(drawn)} == pytest.approx(
        {"utterance": 900, "minute": 80, "5 minutes": 20}, rel=0.5
    )


def test_a_folder_without_recordings_is_refused_with_the_option(tmp_path):
    with pytest.raises(ConfigError, match="--recordings"):
        read_uploads(tmp_path, seed=0)
    (tmp_path / "manifest.jsonl").write_text('{"audio": "x.wav"}\n')
    (tmp_path / "x.wav").write_bytes(b"no audio")
    with pytest.raises(ConfigError, match="can be decoded"):
        read_uploads(tmp_path, seed=0)


def test_a_client_waits_longer_than_the_deadline():
    client = build_client("http://service/v1", deadline_s=300.0)
    assert 300.0 < client.timeout.read < 360.0
