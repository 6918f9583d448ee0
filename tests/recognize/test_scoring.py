import numpy as np
import pytest
import soundfile

from sottovoce.errors import ManifestError
from sottovoce.model.audio_context import AudioContext
from sottovoce.recognize import scoring
from sottovoce.recognize.scoring import count_cores, score_folder, score_recognizer, select_split
from sottovoce.schema import SAMPLING_RATE, Utterance, WindowResult


class EchoRecognizer:
    """Returns the length of each window in seconds as its text."""

    name = "echo"
    context = AudioContext(min_s=1.0, max_s=4.0)
    languages = ("en", "de")

    def __init__(self) -> None:
        self.lengths: list[list[float]] = []
        self.asked: list[str | None] = []
        self.tasks: list[str] = []

    def recognize(self, windows, options):
        self.lengths.append([window.shape[0] / SAMPLING_RATE for window in windows])
        self.asked.extend(option.language for option in options)
        self.tasks.extend(option.task for option in options)
        return [
            WindowResult(
                text=f"w{round(w.shape[0] / SAMPLING_RATE)}",
                token_ids=(),
                language="en",
                avg_logprob=0.0,
                no_speech_prob=0.0,
            )
            for w in windows
        ]


@pytest.fixture
def utterances(tmp_path) -> list[Utterance]:
    """Three recordings of 3, 1 and 2 s, and a fourth that is the last second of the first."""
    random = np.random.default_rng(0)
    rows = []
    for name, duration_s, language in (("c", 3, "en"), ("a", 1, "de"), ("b", 2, "en")):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.1 * random.standard_normal(duration_s * SAMPLING_RATE), SAMPLING_RATE)
        rows.append(
            Utterance(id=name, audio=str(path), duration_s=duration_s, text=f"w{duration_s}", language=language)
        )
    rows.append(Utterance(id="d", audio=rows[0].audio, start_s=2.0, duration_s=1.0, text="other", split="test"))
    return rows


def test_hypotheses_are_listed_by_id_in_the_manifests_order(utterances):
    result = score_recognizer(EchoRecognizer(), utterances, normalizer="basic")
    assert result.hypotheses == {"c": "w3", "a": "w1", "b": "w2", "d": "w1"}
    assert list(result.hypotheses) == ["c", "a", "b", "d"]
    assert (result.wer, result.score.wer.substitutions, result.num_utterances) == (0.25, 1, 4)


def test_batches_go_from_short_to_long(utterances):
    recognizer = EchoRecognizer()
    score_recognizer(recognizer, utterances, normalizer="basic", batch_size=2)
    assert recognizer.lengths == [[1.0, 1.0], [2.0, 3.0]]


def test_each_utterance_is_decoded_in_its_own_language(utterances):
    recognizer = EchoRecognizer()
    score_recognizer(recognizer, utterances, normalizer="basic")
    assert sorted(recognizer.asked) == ["de", "en", "en", "en"]


def test_a_translation_is_requested_for_translated_texts(utterances):
    recognizer = EchoRecognizer()
    translation = utterances[1].model_copy(update={"task": "translate"})
    score_recognizer(recognizer, [translation, utterances[0]], normalizer="basic")
    assert recognizer.tasks == ["translate", "transcribe"]


def test_a_score_says_how_it_decoded_and_keeps_the_durations_that_were_read(utterances):
    longer = utterances[0].model_copy(update={"duration_s": 50.0})
    result = score_recognizer(EchoRecognizer(), [longer], normalizer="basic")
    assert result.decoding.startswith("greedy: temperature 0,")
    assert (result.utterances[0].duration_s, result.audio_s) == (3.0, 3.0)
    assert list(result.snrs_db) == ["c"]


def test_all_cores_are_at_least_one():
    assert count_cores() >= 1


def test_rtfx_is_audio_seconds_per_second_of_recognition(utterances):
    result = score_recognizer(EchoRecognizer(), utterances, normalizer="basic")
    assert result.audio_s == 7.0
    assert result.rtfx == pytest.approx(result.audio_s / result.recognition_s)


def test_recordings_longer_than_the_context_are_cut_and_joined(tmp_path):
    random = np.random.default_rng(0)
    burst = np.concatenate([0.3 * random.standard_normal(14_000), np.zeros(2_000)])
    soundfile.write(tmp_path / "long.wav", np.tile(burst, 11), SAMPLING_RATE)
    recognizer = EchoRecognizer()
    utterance = Utterance(id="long", audio=str(tmp_path / "long.wav"), duration_s=11.0, text="w4 w4 w3")
    result = score_recognizer(recognizer, [utterance], normalizer="basic")
    assert len(result.hypotheses["long"].split()) >= 3
    assert max(length for batch in recognizer.lengths for length in batch) <= 4.0


def test_scoring_nothing_raises_manifest_error():
    with pytest.raises(ManifestError):
        score_recognizer(EchoRecognizer(), [], normalizer="basic")


def test_a_split_is_selected_and_limited(utterances):
    assert [utterance.id for utterance in select_split(utterances, "train", limit=2)] == ["c", "a"]
    assert [utterance.id for utterance in select_split(utterances, "test")] == ["d"]
    with pytest.raises(ManifestError, match="validation"):
        select_split(utterances, "validation")


def test_an_exported_variant_is_scored_from_its_folder(tiny_export, utterances):
    result = score_folder(tiny_export, "fp32", utterances=utterances[1:2], normalizer="english")
    assert result.name == "onnx-fp32"
    assert set(result.hypotheses) == {"a"}
    assert result.rtfx > 0


def test_further_metrics_are_computed_under_the_same_normalization(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "load_recognizer", lambda folder, *, variant, num_threads, device: EchoRecognizer())
    result = score_folder(tmp_path, "torch", utterances=utterances, normalizer="basic", metrics=("wer", "cer", "ser"))
    assert result.metrics["wer"]["wer"] == result.wer
    assert result.metrics["cer"]["cer_high"] == result.score.cer.high
    assert result.metrics["ser"]["ser"] == 0.25
