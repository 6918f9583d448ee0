import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.check import check_row
from sottovoce.data.corpus import CorpusRow, read_corpus
from sottovoce.data.manifest import read_manifest
from sottovoce.data.prepare import PrepareConfig, build_check, count_label_tokens, prepare_corpus, split_duplicates
from sottovoce.errors import CheckpointError, TooManyRejectsError
from sottovoce.schema import Reject, Utterance

TONE = (0.3 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)
REASONS = {
    "empty": "empty",
    "text": "unreadable",
    "truncated": "unreadable",
    "nan": "non_finite",
    "silent": "silent",
    "short": "too_short",
    "long": "too_long",
    "missing": "missing_file",
    "untold": "missing_text",
    "wordy": "label_too_long",
    "latin": "invalid_row",
}
GOOD = ["channels", "fast", "eight_bit", "double"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One good or bad recording per name, and one duplicate id."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("short", "silent", "long", "untold", "wordy", "latin", "nan", "truncated"):
        samples = {"short": TONE[:1_000], "silent": TONE * 1e-4, "long": np.tile(TONE, 31)}.get(name, TONE.copy())
        samples[5] = np.nan if name == "nan" else samples[5]
        soundfile.write(folder / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    soundfile.write(folder / "channels.wav", np.stack([TONE] * 8, axis=1), 16_000)
    soundfile.write(folder / "fast.wav", np.repeat(TONE, 6), 96_000)
    soundfile.write(folder / "eight_bit.wav", TONE, 16_000, subtype="PCM_U8")
    soundfile.write(folder / "double.wav", TONE, 16_000, subtype="DOUBLE")
    (folder / "truncated.wav").write_bytes((folder / "truncated.wav").read_bytes()[:9_000])
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").write_bytes(b"")
    texts = {"untold": " ", "wordy": "w" * 500, "latin": "caf\xe9"}
    lines = [f'{name}.wav,"{texts.get(name, "said")}"' for name in [*REASONS, *GOOD, "fast"]]
    (folder / "metadata.csv").write_bytes("\n".join(["file_name,text", *lines]).encode("latin-1"))
    return folder


def check(row: CorpusRow) -> Utterance | Reject:
    return check_row(row, language="en", min_duration_s=0.1, max_duration_s=30.0, silence_dbfs=-60.0, count_tokens=len)


def test_every_bad_row_is_rejected_for_its_reason_and_every_good_one_kept(corpus: Path):
    unique, duplicates = split_duplicates(read_corpus(corpus))
    outcomes = [check(row) for row in unique]
    rejects = {outcome.id: outcome.reason for outcome in outcomes if isinstance(outcome, Reject)}
    assert rejects == {f"{name}.wav": reason for name, reason in REASONS.items()}
    kept = [outcome for outcome in outcomes if isinstance(outcome, Utterance)]
    assert [row.id for row in kept] == [f"{name}.wav" for name in GOOD]
    assert all(row.duration_s == pytest.approx(1.0, abs=1e-3) for row in kept)
    assert [(row.id, row.reason) for row in duplicates] == [("fast.wav", "duplicate_id")]


def test_a_mapped_row_carries_the_outcome_as_json(corpus: Path):
    row = {"index": 3, "record": json.dumps({"id": "a", "audio": str(corpus / "fast.wav"), "text": " Said. "})}
    checked = build_check(PrepareConfig(language="de"))(row)  # type: ignore[arg-type]
    utterance = Utterance.model_validate_json(checked["record"])
    assert (checked["index"], utterance.text, utterance.language) == (3, "Said.", "de")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="tokenizer"):
        build_check(PrepareConfig(tokenizer=str(tmp_path)))


@pytest.mark.ray
def test_a_corpus_is_prepared_and_no_row_is_lost(corpus: Path, tmp_path: Path):
    import ray

    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False)
    try:
        with pytest.raises(TooManyRejectsError, match="of 16 rows"):
            prepare_corpus(corpus, tmp_path / "out", PrepareConfig())
    finally:
        ray.shutdown()
    utterances = read_manifest(tmp_path / "out" / "manifest.jsonl")
    lines = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert len(utterances) + len(lines) == 16
    assert {row.split for row in utterances} == {"train", "validation", "test"}


@pytest.mark.parametrize(("text", "is_too_long"), [("the " * 443, False), ("the " * 444, True), ("short", False)])
def test_label_lengths_are_checked_without_naming_a_tokenizer(text: str, is_too_long: bool):
    num_tokens = count_label_tokens(text.strip(), tokenizer=PrepareConfig().tokenizer)
    assert (num_tokens > 448) == is_too_long
