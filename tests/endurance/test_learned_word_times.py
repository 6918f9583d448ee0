"""Word times survive training: a run derives its model's alignment heads anew, and the times are right.

Micro as it is hears people's digits badly; eighty steps on packs of them change where its decoder looks. Measured on
two shared cores in 2026-11: on joined validation and training recordings 0.04 s with the heads derived anew and 0.14 s
with micro's; on joined test recordings, whose text was given, 0.02 s.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.train_whisper import TrainJob, main
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import write_manifest
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.schema import Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord
from sottovoce.words.alignment_heads import measure_heads
from sottovoce.words.cross_attention import alignment_heads
from sottovoce.words.timed_speech import TimedSpeech, join_utterances

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

MAX_MEDIAN_ERROR_S = 0.1  # of starts and ends; the bar of the issue is 0.2
NUM_STEPS = 80


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> list[Utterance]:
    """A third of the training recordings of spoken digits, a tenth of them to validate on, and the test recordings."""
    rows = sorted(read_corpus(shared_data / "fsdd"), key=lambda row: (str(row.speaker), row.audio))
    made = []
    for place, row in enumerate(row for row in rows if row.split == "test" or hash_of(row.audio) % 3 == 0):
        split = "test" if row.split == "test" else "validation" if place % 10 == 0 else "train"
        duration_s = soundfile.info(row.audio).duration
        made.append(
            Utterance(
                id=row.id, audio=row.audio, duration_s=duration_s, text=row.text, speaker=row.speaker, split=split
            )
        )
    return made


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.fixture(scope="module")
def digits(recordings: list[Utterance]) -> list[TimedSpeech]:
    """Test recordings joined in an order drawn once; a word's time is that of its sound."""
    test = [one for one in recordings if one.split == "test"]
    order = np.random.default_rng(0).permutation(len(test))
    return join_utterances([test[place] for place in order], max_s=9.0, max_examples=40)


def known_text_error(checkpoint: Checkpoint, speech: list[TimedSpeech]) -> float:
    return float(np.median(np.abs(measure_heads(checkpoint, speech, alignment_heads(checkpoint.model)))))


def test_a_fine_tuned_model_has_heads_of_its_own_and_times_peoples_words(
    local_ray: str,
    recordings: list[Utterance],
    digits: list[TimedSpeech],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    write_manifest(recordings, tmp_path / "manifest.jsonl")
    job = TrainJob(
        data=DatasetConfig(manifest=(tmp_path / "manifest.jsonl",), batch_size=8, pack_s=6.0),
        training=TrainingConfig(
            base="micro", device="cpu", num_epochs=50, max_steps=NUM_STEPS, learning_rate=3e-4, warmup_steps=10,
            evaluate_every_steps=NUM_STEPS, normalizer="basic", trackers=(),
        ),
        output=tmp_path / "run",
    )  # fmt: skip
    main(job)
    record = TrainingRecord.model_validate_json((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    tuned = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert record.alignment is not None
    assert record.alignment.heads == alignment_heads(tuned.model)
    assert record.alignment.error_s is not None
    before = known_text_error(load_checkpoint("micro"), digits)
    known = known_text_error(tuned, digits)
    record_property("validation_error_s", round(record.alignment.error_s, 3))
    record_property("test_digits_error_s", round(known, 3))
    record_property("test_digits_error_before_s", round(before, 3))
    assert record.alignment.error_s <= MAX_MEDIAN_ERROR_S
    assert known <= MAX_MEDIAN_ERROR_S
