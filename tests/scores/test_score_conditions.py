import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.augmentation.conditions import CONDITIONS, select_conditions
from sottovoce.audio.decode import read_audio
from sottovoce.data.manifest import write_manifest
from sottovoce.errors import ConfigError, ManifestError
from sottovoce.model.audio_context import AudioContext
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Utterance, Waveform, WindowResult
from sottovoce.scores.condition_record import ConditionsRecord
from sottovoce.scores.conditions import (
    HYPOTHESES_FILE,
    ComparedModel,
    ConditionsConfig,
    Setting,
    score_conditions,
    score_under_conditions,
    write_perturbed,
)

WORDS = ("one", "two", "three", "four", "five", "six")


class PitchRecognizer:
    """Recognizes words by the pitch of their tone, and none at all where too much of the sound is no tone."""

    context = AudioContext(min_s=1.0, max_s=4.0)
    languages = ("en",)

    def __init__(self, name: str, *, min_share: float) -> None:
        self.name = name
        self.read: list[bytes] = []
        self._min_share = min_share
        """Of the energy, in the loudest bin of 1 Hz."""

    def recognize(self, windows: Sequence[Waveform], options: Sequence[DecodeOptions]) -> list[WindowResult]:
        self.read += [window.tobytes() for window in windows]
        return [
            WindowResult(text=self._word(window), token_ids=(), language="en", avg_logprob=0.0, no_speech_prob=0.0)
            for window in windows
        ]

    def _word(self, window: Waveform) -> str:
        energy = np.square(np.abs(np.fft.rfft(window, n=SAMPLING_RATE)))
        is_tone = energy.max() >= self._min_share * energy.sum()
        return WORDS[round((int(energy.argmax()) - 400) / 100) % len(WORDS)] if is_tone else ""


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """A tone for each word, of 400, 500 ... Hz."""
    rows = []
    for index, word in enumerate(WORDS):
        path = tmp_path / f"{word}.wav"
        tone = 0.3 * np.sin(2 * np.pi * (400 + 100 * index) * np.arange(SAMPLING_RATE) / SAMPLING_RATE)
        soundfile.write(path, tone, SAMPLING_RATE)
        rows.append(Utterance(id=word, audio=str(path), duration_s=1.0, text=word))
    return rows


def score(
    utterances: list[Utterance], folder: Path, names: Sequence[str], *models: PitchRecognizer
) -> list[ConditionsRecord]:
    compared = [ComparedModel(name=model.name, recognizer=model) for model in models]
    conditions, setting = select_conditions(names), Setting(normalizer="basic")
    return list(score_under_conditions(compared, utterances, conditions, setting=setting, folder=folder))


def test_each_level_has_the_rate_of_each_model_with_counts_and_interval(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    *_, record = score(utterances, tmp_path / "out", ["white_noise"], PitchRecognizer("a", min_share=0.4))
    assert (record.models, record.metric, record.normalizer, record.num_utterances) == (("a",), "wer", "basic", 6)
    assert record.clean.rates[0].rate == 0.0
    (noise,) = record.conditions
    assert [level.level for level in noise.levels] == [level.name for level in CONDITIONS["white_noise"].levels]
    rates = [level.rates[0].rate for level in noise.levels]
    assert rates == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # -5 dB: a quarter of the energy is the tone's
    last = noise.levels[-1]
    assert (last.rates[0].deletions, last.rates[0].num_reference, last.rates[0].low) == (6, 6, 1.0)
    assert last.difference is None


def test_the_record_grows_by_a_condition_at_a_time_from_untouched_speech_on(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    records = score(utterances, tmp_path, ["room,speed"], PitchRecognizer("a", min_share=0.0))
    assert [[one.name for one in record.conditions] for record in records] == [[], ["room"], ["room", "speed"]]
    assert ConditionsRecord.model_validate_json(records[-1].model_dump_json()) == records[-1]


def test_two_models_read_identical_sound_and_are_compared_at_every_level(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    robust, fragile = PitchRecognizer("robust", min_share=0.0), PitchRecognizer("fragile", min_share=0.6)
    *_, record = score(utterances, tmp_path, ["white_noise"], robust, fragile)
    assert robust.read == fragile.read
    assert len(robust.read) == 7 * 6
    assert record.clean.difference is not None
    assert (record.clean.difference.difference, record.clean.difference.is_certain) == (0.0, False)
    worst = record.conditions[0].levels[-1].difference
    assert worst is not None
    assert (worst.difference, worst.is_certain) == (-1.0, True)


def test_each_step_is_announced_with_the_time_that_is_left(
    utterances: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sottovoce.scores.conditions")
    score(utterances, tmp_path, ["gain"], PitchRecognizer("a", min_share=0.0))
    lines = [one.getMessage() for one in caplog.records if one.name == "sottovoce.scores.conditions"]
    assert lines[0] == "1 of 4: clean: a"
    assert lines[3] == "4 of 4, about 1 min left: gain -50 dBFS: a"


def test_untouched_speech_is_read_from_its_own_files(utterances: list[Utterance], tmp_path: Path) -> None:
    recognizer = PitchRecognizer("a", min_share=0.0)
    score(utterances, tmp_path / "out", ["gain"], recognizer)
    assert set(recognizer.read[:6]) == {read_audio(one.audio).tobytes() for one in utterances}


def test_every_hypothesis_is_written_and_no_sound_is_left(utterances: list[Utterance], tmp_path: Path) -> None:
    models = PitchRecognizer("a", min_share=0.0), PitchRecognizer("b", min_share=0.9)
    (tmp_path / "out" / ".sound").mkdir(parents=True)  # of a job that was killed
    (tmp_path / "out" / ".sound" / "0.wav").write_bytes(b"half a file")
    score(utterances, tmp_path / "out", ["speed"], *models)
    rows = [json.loads(line) for line in (tmp_path / "out" / HYPOTHESES_FILE).read_text().splitlines()]
    assert [(row["condition"], row["level"], row["model"]) for row in rows[:4]] == [
        ("clean", "clean", "a"), ("clean", "clean", "b"), ("speed", "0.8", "a"), ("speed", "0.8", "b"),
    ]  # fmt: skip
    assert rows[0]["hypotheses"] == {word: word for word in WORDS}
    assert len(rows) == 2 * 5
    assert [path.name for path in (tmp_path / "out").iterdir()] == [HYPOTHESES_FILE]


def test_the_files_of_a_level_are_the_same_bytes_for_any_order_and_number_of_threads(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    level = CONDITIONS["babble"].levels[2]
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    one = write_perturbed(utterances, level, folders[0], seed=0)
    other = write_perturbed(utterances[::-1], level, folders[1], seed=0, num_threads=3)
    assert [Path(row.audio).read_bytes() for row in one] == [Path(row.audio).read_bytes() for row in other[::-1]]
    assert [row.id for row in one] == list(WORDS)


def test_a_piece_of_a_recording_is_distorted_alone_and_its_new_duration_is_stated(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    piece = utterances[0].model_copy(update={"start_s": 0.5, "duration_s": 0.5})
    (written,) = write_perturbed([piece], CONDITIONS["speed"].levels[0], tmp_path, seed=0)
    assert (written.start_s, written.text) == (0.0, "one")
    assert written.duration_s == pytest.approx(0.5 / 0.8, abs=1e-3)
    assert len(read_audio(written.audio)) == round(written.duration_s * SAMPLING_RATE)


def test_what_cannot_be_scored_is_refused_before_any_model_reads(utterances: list[Utterance], tmp_path: Path) -> None:
    recognizer = PitchRecognizer("a", min_share=0.0)
    with pytest.raises(ConfigError, match="babble is made from at least 3 other recordings"):
        score(utterances[:2], tmp_path, ["speed,babble"], recognizer)
    assert not recognizer.read


def test_what_cannot_be_read_is_left_out_of_every_level_and_of_babble(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    Path(utterances[3].audio).write_bytes(b"RIFF no sound")
    recognizer = PitchRecognizer("a", min_share=0.0)
    *_, record = score(utterances, tmp_path / "out", ["babble"], recognizer)
    assert record.num_utterances == 5
    assert list(record.left_out) == ["four"]
    assert [level.rates[0].num_reference for level in record.conditions[0].levels] == [5] * 6
    for one in utterances:
        Path(one.audio).write_bytes(b"RIFF no sound")
    with pytest.raises(ManifestError, match="nothing to score that can be read"):
        score(utterances, tmp_path / "out", ["speed"], recognizer)


def test_a_declared_duration_beyond_the_end_of_the_file_is_corrected(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    """Rows of a streamed corpus declare none."""
    unknown = [one.model_copy(update={"duration_s": 7_200.0}) for one in utterances]
    *_, record = score(unknown, tmp_path / "out", ["gain"], PitchRecognizer("a", min_share=0.0))
    assert record.audio_s == pytest.approx(6.0)


def test_a_wrong_name_is_refused_before_the_speech_is_read_and_the_models_are_loaded(tmp_path: Path) -> None:
    config = ConditionsConfig(model="no such model", manifest=str(tmp_path / "nothing.jsonl"), perturb=("nois",))
    with pytest.raises(ConfigError, match="'nois', which is no condition"):
        next(score_conditions(config, tmp_path))


@pytest.mark.slow
def test_two_models_by_name_are_scored_as_the_service_decodes(utterances: list[Utterance], tmp_path: Path) -> None:
    write_manifest([one.model_copy(update={"split": "test"}) for one in utterances], tmp_path / "manifest.jsonl")
    config = ConditionsConfig(
        model="micro",
        against="micro",
        manifest=str(tmp_path / "manifest.jsonl"),
        perturb=("gain",),
        max_utterances=2,
        num_threads=1,
        device="cpu",
    )
    *_, record = score_conditions(config, tmp_path / "out")
    assert record.models == ("micro (torch)", "micro (torch)")
    assert record.decoding.startswith("service:")
    assert (record.num_utterances, len(record.conditions[0].levels)) == (2, 3)
    differences = [level.difference for level in record.conditions[0].levels]
    assert [one and (one.difference, one.is_certain) for one in differences] == [(0.0, False)] * 3
