"""After fine-tuning on packed speech a model writes the times of segments, and they are right.

Measured on two shared cores in 2026-11, 28 held-out packs of 2 to 5 sentences, 80 steps:

                        right number of segments   median error   errors above 0.5 s
    micro itself                 24 of 28             0.28 s            32 %
    half the labels timed        26 of 28             0.13 s            21 %
    no label timed               22 of 28             0.32 s            41 %
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.train_whisper import TrainJob, main
from sottovoce.audio.augmentation.spec_augment import SpecAugmentConfig
from sottovoce.audio.decode import read_audio
from sottovoce.checkpoints.saver import build_store
from sottovoce.data.dataset import DatasetConfig
from sottovoce.data.manifest import write_manifest
from sottovoce.data.packing import make_examples
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.demo.speech import TRAINING_VOICES
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.vocabulary import build_vocabulary
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Example, Split, Utterance, Waveform, WindowSegment
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import TrainingRecord
from sottovoce.words.segments import split_window

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(1800)]

VOICES = TRAINING_VOICES[:4]
COUNTS: dict[Split, int] = {"train": 320, "validation": 8, "test": 96}
PACK_S = 10.0  # micro's longest context
QUIET_S = (0.1, 0.4)  # before and after each sentence
NUM_STEPS = 80
MAX_MEDIAN_ERROR_S = 0.2
MIN_RIGHT_COUNTS = 0.75


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Sentences in four voices, a file each, with quiet around the speech; and a manifest beside them."""
    folder = tmp_path_factory.mktemp("corpus")
    generator, noise = random.Random(3), np.random.default_rng(3)
    grammar = load_grammar("sentences")
    made = []
    for index, split in enumerate(split for split, count in COUNTS.items() for _ in range(count)):
        voice = VOICES[index % len(VOICES)]
        text, _, speech = speak_sentence(grammar, generator, symbol="sentence", voices=[voice])
        before, after = (noise.uniform(*QUIET_S, size=2) * SAMPLING_RATE).astype(int)
        waveform = np.pad(speech, (before, after))
        path = folder / f"{index}.wav"
        soundfile.write(path, waveform, SAMPLING_RATE, subtype="PCM_16")
        duration_s = len(waveform) / SAMPLING_RATE
        made.append(
            Utterance(
                id=f"u{index}",
                audio=str(path),
                duration_s=duration_s,
                text=text,
                speaker=voice,
                split=split,
            )
        )
    write_manifest(made, folder / "manifest.jsonl")
    return made


def train(utterances: Sequence[Utterance], output: Path) -> Path:
    """Fine-tune micro on packs for a minute or so; gives the last step's model, even where another's WER is lower."""
    job = TrainJob(
        data=DatasetConfig(
            manifest=(Path(utterances[0].audio).with_name("manifest.jsonl"),), batch_size=4, pack_s=PACK_S
        ),
        training=TrainingConfig(
            base="micro",
            device="cpu",
            num_epochs=20,
            max_steps=NUM_STEPS,
            learning_rate=3e-4,
            warmup_steps=10,
            evaluate_every_steps=NUM_STEPS,
            timestamp_probability=0.5,
            normalizer="basic",
            spec_augment=SpecAugmentConfig(num_time_masks=1, num_mel_masks=1),
            trackers=(),
        ),
        output=output,
    )
    main(job)
    record = TrainingRecord.model_validate_json((output / "record.json").read_text(encoding="utf-8"))
    assert record.num_steps == NUM_STEPS
    assert not record.data.rejects
    newest = build_store(None, output=output).committed()[0]
    return output / "checkpoints" / newest.name / "checkpoint"


@dataclass(frozen=True)
class Times:
    """How well a checkpoint times the segments of held-out packs."""

    right_counts: float
    """Share of the packs with as many segments as utterances."""
    median_error_s: float
    """Of starts and ends, in the packs whose count is right."""
    large_errors: float
    """Share of them above half a second."""


def held_out_packs(utterances: Sequence[Utterance]) -> list[Example]:
    test = [one.model_copy(update={"split": "train"}) for one in utterances if one.split == "test"]
    return [pack for pack in make_examples(test, pack_s=PACK_S) if len(pack.utterances) > 1]


def measure_times(model: Path | str, packs: Sequence[Example]) -> Times:
    checkpoint = load_checkpoint(model)
    vocabulary = build_vocabulary(checkpoint.tokenizer, checkpoint.model.generation_config.to_dict(), source="test")
    waveforms: list[Waveform] = [
        np.concatenate([read_audio(one.audio) for one in pack.utterances])[: round(PACK_S * SAMPLING_RATE)]
        for pack in packs
    ]
    results = TorchRecognizer(checkpoint).recognize(waveforms, [DecodeOptions(timestamps=True)] * len(packs))
    errors: list[float] = []
    num_right = 0
    for pack, waveform, result in zip(packs, waveforms, results, strict=True):
        segments, _ = split_window(
            result.token_ids,
            kinds=vocabulary.kinds,
            decode_raw=vocabulary.text,
            duration_s=len(waveform) / SAMPLING_RATE,
        )
        if len(segments) == len(pack.utterances):
            num_right += 1
            errors += time_errors(segments, pack)
    return Times(
        right_counts=num_right / len(packs),
        median_error_s=float(np.median(errors)) if errors else float("inf"),
        large_errors=float(np.mean(np.array(errors) > 0.5)) if errors else 1.0,
    )


def time_errors(segments: Sequence[WindowSegment], pack: Example) -> list[float]:
    ends = np.cumsum([one.duration_s for one in pack.utterances])
    starts = ends - [one.duration_s for one in pack.utterances]
    return [
        abs(found - true)
        for segment, start, end in zip(segments, starts, ends, strict=True)
        for found, true in ((segment.start_s, start), (segment.end_s, end))
    ]


def test_segment_times_come_out_right_after_fine_tuning_on_packs(
    local_ray: str, utterances: list[Utterance], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    packs = held_out_packs(utterances)
    assert len(packs) >= 20
    base = measure_times("micro", packs)
    timed = measure_times(train(utterances, tmp_path / "timed"), packs)
    for name, times in (("before", base), ("after", timed)):
        record_property(name, asdict(times))
    assert timed.median_error_s <= MAX_MEDIAN_ERROR_S
    assert timed.right_counts >= MIN_RIGHT_COUNTS
    assert timed.median_error_s < base.median_error_s
