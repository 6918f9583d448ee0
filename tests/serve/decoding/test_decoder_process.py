"""Decoding in a process: the same samples, its limits, and its death."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import psutil
import pytest
import soundfile

from benchmarks.abusive_clients import adts
from serve.decoding.memory import DecodedAudio, DecodedBudget
from serve.decoding.process import DecoderProcess
from serve.decoding.worker import Job
from serve.errors import DecodedAudioError
from sottovoce.audio.decode import decode_pcm
from sottovoce.errors import AudioDecodeError, AudioTooLongError, EmptyAudioError

JOB = Job(max_duration_s=3600.0, max_cpu_s=60)


def recording(duration_s: float, rate: int = 44_100, num_channels: int = 2, container: str = "FLAC") -> bytes:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(duration_s * rate), num_channels))
    buffer = io.BytesIO()
    soundfile.write(buffer, noise.astype(np.float32), rate, format=container)
    return buffer.getvalue()


@cache
def silence(duration_s: int, rate: int = 48_000, num_channels: int = 2) -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, num_channels, "PCM_16", format="FLAC") as file:
        for _ in range(duration_s):
            file.write(np.zeros((rate, num_channels), np.int16))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    """One process for all tests: a new one takes half a second."""
    made = DecoderProcess(yields=True, silence_s=60)
    yield made
    made.close()


def decode(decoder: DecoderProcess, data: bytes, job: Job = JOB, max_bytes: int = 2**30) -> np.ndarray:
    audio = DecodedAudio(DecodedBudget(max_bytes), is_long=False)
    assert decoder.decode(data, job, audio) is None
    return audio.samples()


def pid_of(decoder: DecoderProcess) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def test_samples_are_those_of_decoding_here(decoder):
    for data in (recording(3.0), recording(1.0, 16_000, 1, "WAV")):
        assert np.array_equal(decode(decoder, data), decode_pcm(data, source="test"))
    if sys.platform == "linux":
        assert os.sched_getscheduler(pid_of(decoder)) == os.SCHED_IDLE


def test_channels_that_cancel_each_other_out_begin_again(decoder):
    one = np.random.default_rng(0).uniform(-0.5, 0.5, 80_000).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([one, -one], axis=1), 16_000, format="WAV", subtype="PCM_16")
    decoded = decode(decoder, buffer.getvalue())
    assert np.array_equal(decoded, decode_pcm(buffer.getvalue(), source="test"))
    assert np.abs(decoded).max() > 10_000


def test_what_is_wrong_with_a_recording_is_raised_and_the_process_stays(decoder):
    decode(decoder, recording(0.1))
    before = pid_of(decoder)
    for data, error in ((b"", EmptyAudioError), (b"no audio", AudioDecodeError), (silence(4), AudioTooLongError)):
        with pytest.raises(error, match="the uploaded file"):
            decode(decoder, data, Job(max_duration_s=3.0, max_cpu_s=60))
    assert pid_of(decoder) == before


def test_the_first_part_of_a_long_recording_says_how_long_it_will_be(decoder):
    audio = DecodedAudio(DecodedBudget(2**30), is_long=False)
    data = recording(60.0, 16_000, 1)
    expected_s = decoder.decode(data, Job(max_duration_s=3600.0, first_s=10.0, max_cpu_s=60), audio)
    assert expected_s == pytest.approx(60.0, rel=0.25)
    assert decoder.decode(data, Job(max_duration_s=3600.0, first_s=61.0, max_cpu_s=60), audio) is None
    wide = Job(max_duration_s=3600.0, first_s=61.0, first_decoded_bytes=2**20, max_cpu_s=60)
    assert decoder.decode(data, wide, audio) is not None


def test_a_recording_that_takes_too_much_processor_time_is_refused_by_its_limit(decoder):
    hour = adts(np.zeros(960_000, np.float32), rate=96_000, bit_rate=8_000) * 359
    with pytest.raises(AudioDecodeError, match="more than 0 s of processor time"):
        decode(decoder, hour, Job(max_duration_s=3600.0, max_cpu_s=0))
    assert len(decode(decoder, recording(1.0))) == 16_000


def test_a_decoder_that_dies_is_replaced_and_its_recording_refused(decoder):
    decode(decoder, recording(0.1))
    data = silence(15, 655_350, 8)
    killing = threading.Timer(0.2, os.kill, (pid_of(decoder), signal.SIGSEGV))
    killing.start()
    with pytest.raises(AudioDecodeError, match="cannot read it"):
        decode(decoder, data)
    killing.join()
    assert len(decode(decoder, recording(1.0))) == 16_000


def test_a_decoder_that_says_nothing_is_replaced(caplog):
    silent = DecoderProcess(yields=False, silence_s=1)
    silent.start()
    os.kill(pid_of(silent), signal.SIGSTOP)
    with pytest.raises(AudioDecodeError, match="cannot read it"):
        decode(silent, recording(1.0))
    assert "silent for 1 s" in caplog.text
    silent.close()


def test_a_recording_that_the_budget_does_not_hold_is_stopped(decoder):
    with pytest.raises(DecodedAudioError):
        decode(decoder, recording(60.0), max_bytes=2**20)
    assert len(decode(decoder, recording(1.0))) == 16_000


def test_the_memory_of_the_process_is_bounded(decoder):
    decode(decoder, silence(300))
    assert psutil.Process(pid_of(decoder)).memory_info().rss < 300 * 2**20


def test_the_process_ends_with_the_one_that_started_it():
    decoder = DecoderProcess(yields=False, silence_s=60)
    decode(decoder, recording(0.1))
    process = psutil.Process(pid_of(decoder))
    assert decoder._connection is not None
    decoder._connection.close()
    end = time.monotonic() + 20.0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.01)
    decoder._connection = None
    decoder.close()
