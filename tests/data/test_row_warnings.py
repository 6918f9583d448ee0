import numpy as np
import pytest

from sottovoce.audio.waveform import AudioFormat
from sottovoce.data.check import find_warnings
from sottovoce.schema import Waveform

USUAL = {"sampling_rate": 16_000, "num_channels": 1, "bits": 16, "container": "wav"}
TONE: Waveform = (0.5 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)


def kinds(waveform: Waveform = TONE, declared_s: float | None = None, **fields: object) -> list[str]:
    audio_format = AudioFormat(**USUAL | fields)  # type: ignore[arg-type]  # fields vary by test
    return [kind for kind, _ in find_warnings(waveform, audio_format, declared_s=declared_s)]


@pytest.mark.parametrize(
    "fields", [{"sampling_rate": 8_000}, {"sampling_rate": 48_000}, {"num_channels": 2}, {"bits": 24}, {"bits": None}]
)
def test_usual_recordings_get_no_warning(fields: dict[str, object]):
    assert kinds(**fields) == []


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"bits": 8}, "low_bit_depth"),
        ({"sampling_rate": 6_000}, "unusual_rate"),
        ({"sampling_rate": 96_000}, "unusual_rate"),
        ({"num_channels": 3}, "many_channels"),
    ],
)
def test_an_unusual_container_gets_a_warning(fields: dict[str, object], kind: str):
    assert kinds(**fields) == [kind]


def test_all_warnings_about_one_recording_are_returned():
    assert kinds(bits=8, sampling_rate=96_000, num_channels=8) == ["low_bit_depth", "unusual_rate", "many_channels"]


def test_clipping_is_distinguished_from_a_few_loud_samples():
    loud = TONE.copy()
    loud[:10] = 1.0
    assert kinds(loud) == []
    assert kinds(np.clip(3.0 * TONE, -1.0, 1.0)) == ["clipped"]


@pytest.mark.parametrize(("declared_s", "differs"), [(1.05, False), (1.2, True), (0.5, False), (None, False)])
def test_a_recording_shorter_than_declared_gets_a_warning(declared_s: float | None, differs: bool):
    assert kinds(declared_s=declared_s) == ["duration_differs"] * differs


def test_one_percent_of_a_long_recording_is_no_difference():
    long = np.tile(TONE, 20)
    assert kinds(long, declared_s=20.15) == []
    assert kinds(long, declared_s=20.3) == ["duration_differs"]


def test_a_warning_says_the_value_and_what_was_done():
    audio_format = AudioFormat(**USUAL | {"bits": 8, "sampling_rate": 96_000})  # type: ignore[arg-type]
    details = dict(find_warnings(TONE, audio_format, declared_s=2.0))
    assert details["low_bit_depth"] == "8 bits a sample; used as it is"
    assert details["unusual_rate"] == "96000 Hz; resampled to 16000 Hz"
    assert details["duration_differs"] == "declared 2.000 s, but it ends after 1.000 s; used to its end"
