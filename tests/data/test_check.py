import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.decode import read_audio
from sottovoce.audio.waveform import to_pcm
from sottovoce.data.check import Checked, CheckRules, check_row, reject_duplicate
from sottovoce.data.corpora.read import read_corpus
from sottovoce.data.corpora.row import CorpusRow
from sottovoce.schema import Reject, RowWarning, Split, Utterance

TONE = (0.3 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)
REASONS = {
    "empty": "empty",
    "instant": "empty",
    "text": "unreadable",
    "truncated": "unreadable",
    "nan": "non_finite",
    "silent": "silent",
    "short": "too_short",
    "long": "too_long",
    "missing": "missing_file",
    "untold": "missing_text",
    "wordy": "label_too_long",
    "latin": "wrong_encoding",
    "foreign": "unknown_language",
}
WARNINGS = {
    "octaphonic": "many_channels",
    "fast": "unusual_rate",
    "eight_bit": "low_bit_depth",
    "overdriven": "clipped",
}
RULES = CheckRules(
    corpus="tones",
    language="en",
    languages={"en": "en", "de": "de", "german": "de"},
    task="transcribe",
    cleaning=("unicode_nfc", "whitespace"),
    empty_text="reject",
    min_duration_s=0.1,
    max_duration_s=30.0,
    max_test_duration_s=30.0,
    silence_dbfs=-60.0,
    count_tokens=len,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One recording per name."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("short", "silent", "long", "untold", "wordy", "latin", "foreign", "nan", "truncated", "instant"):
        samples = {"short": TONE[:1_000], "silent": TONE * 1e-4, "long": np.tile(TONE, 31), "instant": TONE[:0]}
        sound = samples.get(name, TONE.copy())
        sound[5:6] = np.nan if name == "nan" else sound[5:6]
        soundfile.write(folder / f"{name}.wav", sound, 16_000, subtype="FLOAT")
    soundfile.write(folder / "octaphonic.wav", np.stack([TONE] * 8, axis=1), 16_000)
    soundfile.write(folder / "fast.wav", np.repeat(TONE, 6), 96_000)
    soundfile.write(folder / "eight_bit.wav", TONE, 16_000, subtype="PCM_U8")
    soundfile.write(folder / "overdriven.wav", np.clip(5.0 * TONE, -1.0, 1.0), 16_000)
    soundfile.write(folder / "double.wav", TONE, 16_000, subtype="DOUBLE")
    (folder / "truncated.wav").write_bytes((folder / "truncated.wav").read_bytes()[:9_000])
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").write_bytes(b"")
    texts = {"untold": " ", "wordy": "w" * 500, "latin": "caf\xe9"}
    names = [*REASONS, *WARNINGS, "double"]
    lines = [f'{name}.wav,"{texts.get(name, "said")}",{"tlh" if name == "foreign" else ""}' for name in names]
    (folder / "metadata.csv").write_bytes("\n".join(["file_name,text,language", *lines]).encode("latin-1"))
    return folder


@pytest.fixture
def tone(tmp_path: Path) -> CorpusRow:
    soundfile.write(tmp_path / "tone.wav", to_pcm(TONE), 16_000)
    return CorpusRow(id="tone", audio=str(tmp_path / "tone.wav"), text="said")


def kept(checked: Checked) -> Utterance:
    assert isinstance(checked.outcome, Utterance)
    return checked.outcome


def refused(checked: Checked) -> Reject:
    assert isinstance(checked.outcome, Reject)
    return checked.outcome


def test_every_bad_row_is_rejected_for_its_reason_and_every_good_one_kept(corpus: Path):
    checked = [check_row(row, RULES) for row in read_corpus(corpus)]
    rejects = {each.outcome.id: each.outcome.reason for each in checked if isinstance(each.outcome, Reject)}
    assert rejects == {f"{name}.wav": reason for name, reason in REASONS.items()}
    utterances = [each.outcome for each in checked if isinstance(each.outcome, Utterance)]
    assert [row.id for row in utterances] == [f"{name}.wav" for name in (*WARNINGS, "double")]
    assert all(row.duration_s == pytest.approx(1.0, abs=1e-3) for row in utterances)


def test_accepted_rows_get_warnings_and_rejects_get_none(corpus: Path):
    checked = [check_row(row, RULES) for row in read_corpus(corpus)]
    warnings = [(warning.id, warning.kind) for each in checked for warning in each.warnings]
    assert warnings == [(f"{name}.wav", kind) for name, kind in WARNINGS.items()]


def test_an_utterance_says_where_it_comes_from(tone: CorpusRow):
    row = dataclasses.replace(tone, speaker="a", recording="r", language="de", task="translate", start_s=0.25)
    utterance = kept(check_row(row, RULES))
    assert utterance == Utterance(
        id="tone",
        audio=tone.audio,
        start_s=0.25,
        duration_s=0.75,
        text="said",
        language="de",
        task="translate",
        speaker="a",
        recording="r",
        corpus="tones",
    )


def test_a_row_that_names_neither_language_nor_task_gets_those_of_the_rules(tone: CorpusRow):
    rules = dataclasses.replace(RULES, language="de", task="translate")
    utterance = kept(check_row(tone, rules))
    assert (utterance.language, utterance.task) == ("de", "translate")
    assert kept(check_row(dataclasses.replace(tone, language="German"), RULES)).language == "de"


def test_a_transcript_is_cleaned_before_it_is_measured(tone: CorpusRow):
    row = dataclasses.replace(tone, text="  said\u00a0 cafe\u0301 \n" + " " * 500)
    assert kept(check_row(row, RULES)).text == "said caf\u00e9"
    uncleaned = dataclasses.replace(RULES, cleaning=())
    assert (
        refused(check_row(dataclasses.replace(tone, text="a" + " " * 500 + "b"), uncleaned)).reason == "label_too_long"
    )


def test_an_empty_text_can_stand_for_no_speech_and_a_missing_one_cannot(tone: CorpusRow, corpus: Path):
    rules = dataclasses.replace(RULES, empty_text="no_speech")
    silent = CorpusRow(id="silent", audio=str(corpus / "silent.wav"), text=" ")
    assert kept(check_row(silent, rules)).text == ""
    assert kept(check_row(dataclasses.replace(tone, text=""), rules)).text == ""
    assert refused(check_row(dataclasses.replace(tone, text=None), rules)).detail == "the transcript is missing"
    assert refused(check_row(dataclasses.replace(silent, text="said"), rules)).reason == "silent"
    assert refused(check_row(silent, RULES)).detail == "the transcript is empty"


def test_the_digest_is_that_of_the_sound_whatever_the_container(tone: CorpusRow, tmp_path: Path):
    soundfile.write(tmp_path / "tone.flac", to_pcm(TONE), 16_000)
    flac = check_row(dataclasses.replace(tone, audio=str(tmp_path / "tone.flac")), RULES)
    pcm = to_pcm(read_audio(tmp_path / "tone.flac"))
    assert flac.digest == hashlib.sha256(pcm.tobytes()).hexdigest()
    assert check_row(tone, RULES).digest == flac.digest
    assert check_row(dataclasses.replace(tone, start_s=0.1), RULES).digest != flac.digest
    assert check_row(dataclasses.replace(tone, audio="nowhere.wav"), RULES).digest is None


def test_bytes_in_the_row_are_decoded_instead_of_the_reference(tone: CorpusRow):
    data = Path(tone.audio).read_bytes()
    inside = dataclasses.replace(tone, audio="shard.parquet")
    assert kept(check_row(inside, RULES, data=data)).duration_s == 1.0
    assert refused(check_row(inside, RULES, data=b"")).reason == "empty"


def test_the_declared_split_is_kept_for_utterances_and_rejects(tone: CorpusRow):
    row = dataclasses.replace(tone, split="test")
    assert check_row(row, RULES).split == "test"
    assert check_row(dataclasses.replace(row, text=None), RULES).split == "test"


def test_a_checked_row_can_be_renamed_with_its_warnings(corpus: Path):
    row = CorpusRow(id="", audio="x", text="said")
    named = check_row(row, RULES, data=(corpus / "fast.wav").read_bytes()).located("b", "x#row=1", split="test")
    assert (named.outcome.id, named.outcome.audio, named.split) == ("b", "x#row=1", "test")
    assert [(warning.id, warning.audio) for warning in named.warnings] == [("b", "x#row=1")]
    assert isinstance(named.warnings[0], RowWarning)


def test_a_duplicate_is_rejected_with_its_id():
    reject = refused(reject_duplicate("a", "a.wav"))
    assert (reject.id, reject.audio, reject.reason) == ("a", "a.wav", "duplicate_id")


@pytest.fixture
def long(tmp_path: Path) -> CorpusRow:
    """31 s with 500 tokens of text."""
    soundfile.write(tmp_path / "long.wav", to_pcm(np.tile(TONE, 31)), 16_000)
    return CorpusRow(id="long", audio=str(tmp_path / "long.wav"), text="w" * 500)


@pytest.mark.parametrize("split", [None, "test"])
def test_a_long_recording_is_kept_for_the_test_split_if_its_limit_allows_it(long: CorpusRow, split: Split | None):
    rules = dataclasses.replace(RULES, max_test_duration_s=60.0)
    checked = check_row(dataclasses.replace(long, split=split), rules)
    assert kept(checked).duration_s == pytest.approx(31.0)
    assert refused(check_row(dataclasses.replace(long, split="train"), rules)).reason == "too_long"
    short = dataclasses.replace(long, split=split, duration_s=2.0)
    assert refused(check_row(short, rules)).reason == "label_too_long"


@pytest.mark.parametrize(("split", "remedy"), [(None, "or raise prepare"), ("train", "or move it from train")])
def test_a_recording_that_is_too_long_is_told_both_ways_to_use_it(long: CorpusRow, split: Split | None, remedy: str):
    detail = refused(check_row(dataclasses.replace(long, split=split), RULES)).detail
    assert detail.startswith("it is longer than 30 s; name the start_s, duration_s and text of its parts")
    assert remedy in detail
    assert "prepare.max_test_duration_s" in detail


def test_mu_law_is_no_coarse_recording(tmp_path: Path):
    soundfile.write(tmp_path / "call.wav", TONE[::2], 8_000, subtype="ULAW")
    assert check_row(CorpusRow(id="call", audio=str(tmp_path / "call.wav"), text="said"), RULES).warnings == ()
