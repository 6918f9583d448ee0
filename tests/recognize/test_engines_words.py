"""Word times of the ONNX engine against the torch engine's and against known times, with the embedded micro."""

from collections.abc import Sequence

import numpy as np
import pytest

from sottovoce.audio.decode import read_audio
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.export.onnx import export_onnx
from sottovoce.export.quantize import quantize_int8
from sottovoce.model.checkpoint import load_checkpoint, save_checkpoint
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import DecodeOptions, WindowResult
from sottovoce.words.timed_speech import TimedSpeech, word_errors

pytestmark = pytest.mark.slow  # 40 windows in three engines, and an export

TOLERANCE_S = 0.02  # one position of the encoder
MAX_MEDIAN_ERROR_S = 0.1  # on speech with known times; measured 0.02
MIN_SHARE_NEAR_INT8 = 0.9  # of starts and ends within the tolerance of torch's; measured 0.96
OPTIONS = [DecodeOptions(word_timestamps=True, timestamps=timestamps) for timestamps in (False, True)]


@pytest.fixture(scope="module")
def known() -> list[TimedSpeech]:
    return speak_timed(20, voices=UNSEEN_VOICES, max_s=9.5, seed=7)


@pytest.fixture(scope="module")
def windows(known, shared_data) -> list[np.ndarray]:
    """Twenty windows of synthetic sentences, and twenty of spoken digits, two recordings in each."""
    recordings = sorted((shared_data / "fsdd").rglob("*.wav"))
    digits = [read_audio(path) for path in recordings[:: len(recordings) // 40]][:40]
    return [speech.waveform for speech in known] + [np.concatenate(digits[i : i + 2]) for i in range(0, 40, 2)]


@pytest.fixture(scope="module")
def results(windows, micro_assets, tmp_path_factory) -> dict[str, list[WindowResult]]:
    """Each engine's results, every other window with timestamps."""
    folder = tmp_path_factory.mktemp("micro")
    checkpoint = load_checkpoint(micro_assets)
    save_checkpoint(checkpoint, folder / "fp32")
    save_checkpoint(checkpoint, folder / "int8")
    export_onnx(checkpoint, folder / "fp32")
    quantize_int8(folder / "fp32", folder / "int8")
    options = [OPTIONS[place % 2] for place in range(len(windows))]
    sources = {"torch": micro_assets, "fp32": folder, "int8": folder}
    return {
        variant: load_recognizer(source, variant=variant).recognize(windows, options)
        for variant, source in sources.items()
    }


def differences_s(results: Sequence[WindowResult], expected: Sequence[WindowResult]) -> np.ndarray:
    """Of the words in windows with equal tokens."""
    return np.array(
        [
            abs(mine - theirs)
            for result, other in zip(results, expected, strict=True)
            if result.token_ids == other.token_ids
            for word, same in zip(result.words, other.words, strict=True)
            for mine, theirs in ((word.start_s, same.start_s), (word.end_s, same.end_s))
        ]
    )


def test_fp32_words_are_torchs_on_forty_windows(results):
    assert len(results["fp32"]) == 40
    assert [result.token_ids for result in results["fp32"]] == [result.token_ids for result in results["torch"]]
    differences = differences_s(results["fp32"], results["torch"])
    assert len(differences) > 150
    assert differences.max() <= TOLERANCE_S


def test_int8_words_are_near_torchs(results):
    differences = differences_s(results["int8"], results["torch"])
    assert len(differences) > 120
    assert np.mean(differences <= TOLERANCE_S) >= MIN_SHARE_NEAR_INT8


@pytest.mark.parametrize("variant", ["torch", "fp32", "int8"])
def test_words_never_go_back_and_stay_within_their_segment(results, windows, variant):
    num_segments = 0
    for result, window in zip(results[variant], windows, strict=True):
        times = [at_s for word in result.words for at_s in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0.0 <= at_s <= len(window) / 16_000 for at_s in times)
        bounds = [at_s for segment in result.segments for at_s in (segment.start_s, segment.end_s)]
        assert bounds == sorted(bounds)
        for segment in result.segments:
            assert all(segment.start_s <= word.start_s <= word.end_s <= segment.end_s for word in segment.words)
            assert "".join(word.text for word in segment.words) == "".join(segment.text.split())
        num_segments += len(result.segments)
    assert num_segments > len(windows)


@pytest.mark.parametrize("variant", ["torch", "fp32", "int8"])
def test_word_times_are_near_the_known_ones(results, known, variant):
    found = [word_errors(result.words, speech) for result, speech in zip(results[variant], known, strict=False)]
    right = [errors for errors in found if errors is not None]
    assert len(right) > 12
    assert np.median(np.abs([error for errors in right for error in errors])) <= MAX_MEDIAN_ERROR_S
