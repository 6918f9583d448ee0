"""A model is scored from a manifest and from Parquet, with everything that the score says."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sottovoce.data.manifest import read_manifest, write_manifest
from sottovoce.errors import CheckpointError, ConfigError, ManifestError
from sottovoce.model.audio_context import AudioContext
from sottovoce.recognize import scoring
from sottovoce.schema import SAMPLING_RATE, Utterance, WindowResult
from sottovoce.scores.breakdown import MISSING
from sottovoce.scores.run import ScoreConfig, score_model
from sottovoce.scores.speech import SpeechQuery, read_speech

TEXTS = ("The larynx is swollen.", "He came home.", "Nobody knows him.", "")


class Repeating:
    """Writes one text for everything."""

    name = "repeating"
    context = AudioContext(min_s=30.0, max_s=30.0)
    languages = ("en",)

    def __init__(self, text: str) -> None:
        self.text = text

    def recognize(self, windows, options):
        empty = {"token_ids": (), "language": "en", "avg_logprob": 0.0, "no_speech_prob": 0.0}
        return [WindowResult(text=self.text, **empty) for _ in windows]


@pytest.fixture
def settings(tmp_path, micro_assets, monkeypatch) -> dict[str, object]:
    """A manifest of four utterances, and a model that writes the second's text; its folder has micro's tokenizer."""
    rows = []
    for number, text in enumerate(TEXTS):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).standard_normal(16_000) * 0.1, SAMPLING_RATE)
        rows.append(
            Utterance(
                id=str(number), audio=str(path), duration_s=1.0, text=text, split="test", speaker=f"s{number % 2}"
            )
        )
    write_manifest(rows, tmp_path / "manifest.jsonl")
    monkeypatch.setattr(
        scoring, "load_recognizer", lambda folder, *, variant, num_threads, device: Repeating("He came home.")
    )
    return {
        "model": str(micro_assets),
        "manifest": str(tmp_path / "manifest.jsonl"),
        "decoding": "greedy",
        "metrics": (),
        "num_threads": 1,
    }


def test_a_score_has_its_groups_mistakes_and_hypotheses_in_file_and_print(settings, tmp_path):
    table = tmp_path / "conditions.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "condition"), ("0", "car"), ("1", "car"), ("2", "office"), ("3", "music")])
    output = tmp_path / "score.json"
    score = score_model(ScoreConfig(**settings, by=("condition", "split"), columns=table), output)
    values = json.loads(output.read_text())
    assert values["hypotheses"] == dict.fromkeys("0123", "He came home.")
    assert values["decoding"].startswith("greedy")
    assert values["wer"]["num_reference"] == 10
    groups = {(group["kind"], group["name"]): group for group in values["groups"]}
    assert groups["condition", "car"]["num_errors"] == 4
    assert groups["split", "test"]["num_utterances"] == 4
    assert values["invented"][0]["num_words"] == 3
    assert {"term": "larynx", "num_said": 1, "num_recognized": 0} in values["terms"]
    printed = score.describe()
    for line in ("decoded as greedy", "by condition", "condition music", "casing errors", "to quote: WER (english)"):
        assert line in printed
    assert len(score.utterances) == 4


def test_two_models_are_compared_by_file_or_by_scoring_the_second(settings, tmp_path):
    first = tmp_path / "first.json"
    score_model(ScoreConfig(**settings), first)
    by_file = score_model(ScoreConfig(**settings, against=str(first)), tmp_path / "a.json")
    by_model = score_model(ScoreConfig(**settings, against=str(settings["model"])), tmp_path / "b.json")
    for score in (by_file, by_model):
        assert score.report.verdict is not None
        assert score.report.verdict.sentence.startswith("No difference can be told on 10 words")
        assert "verdict: No difference" in score.describe()


def test_a_second_model_that_is_not_there_is_refused_before_anything_is_recognized(settings, tmp_path):
    with pytest.raises(CheckpointError):
        score_model(ScoreConfig(**settings, against=str(tmp_path / "none")), tmp_path / "score.json")
    with pytest.raises(ManifestError, match="cannot be read"):
        score_model(ScoreConfig(**settings, against=str(tmp_path / "none.json")), tmp_path / "score.json")
    assert not (tmp_path / "score.json").exists()


def test_given_terms_replace_the_tokenizers_rare_words(settings, tmp_path):
    terms = tmp_path / "terms.txt"
    terms.write_text("came home\n\nlarynx\n", encoding="utf-8")
    report = score_model(ScoreConfig(**settings, terms=terms), tmp_path / "score.json").report
    assert [(one.term, one.num_recognized) for one in report.terms] == [("larynx", 0), ("came home", 1)]
    terms.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no term"):
        score_model(ScoreConfig(**settings, terms=terms), tmp_path / "score.json")


def test_a_column_that_is_nowhere_is_refused_before_anything_is_recognized(settings, tmp_path):
    with pytest.raises(ConfigError, match="by 'condition': there is no such column"):
        score_model(ScoreConfig(**settings, by=("condition",)), tmp_path / "score.json")


def test_further_columns_of_a_manifest_need_no_table(settings, tmp_path):
    path = tmp_path / "manifest.jsonl"
    rows = read_manifest(path)
    for number, room in enumerate(("hall", "car", "car")):
        rows[number] = rows[number].model_copy(update={"columns": {"room": room}})
    write_manifest(rows, path)
    report = score_model(ScoreConfig(**settings, by=("room",)), tmp_path / "score.json").report
    assert {one.name: one.num_utterances for one in report.groups if one.kind == "room"} == {
        "car": 2,
        "hall": 1,
        MISSING: 1,
    }
    with pytest.raises(ConfigError, match=r"by 'mood': there is no such column; there are room, id, .*keep-columns"):
        read_speech(str(path), SpeechQuery(by=("mood",)))
    table = tmp_path / "rooms.csv"
    table.write_text("id,room\n0,office\n")
    assert read_speech(str(path), SpeechQuery(by=("room",)), table=table).columns == {"room": {"0": "office"}}


def test_further_columns_of_a_corpus_that_was_not_prepared_are_found(settings, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "metadata.csv").write_text("file_name,text,speaker,room\na.wav,one,s1,hall\nb.wav,two,s2,\n")
    speech = read_speech(str(folder), SpeechQuery(by=("room", "speaker")))
    assert speech.columns == {"room": {"a.wav": "hall"}, "speaker": {"a.wav": "s1", "b.wav": "s2"}}
    with pytest.raises(ManifestError, match="has no column 'mood' to keep; there are file_name, room"):
        read_speech(str(folder), SpeechQuery(by=("mood",)))
    (tmp_path / "moods.jsonl").write_text('{"id": "a.wav", "mood": "calm"}\n')
    speech = read_speech(str(folder), SpeechQuery(by=("mood",)), table=tmp_path / "moods.jsonl")
    assert speech.columns == {"mood": {"a.wav": "calm"}}


@pytest.fixture
def shards(tmp_path):
    """Two shards of the Hub's layout, test and train, with a column of their own and a row without text."""
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for split, texts in (("test", ["He came home.", "Nobody knows him.", None]), ("train", ["Never scored."])):
        sounds = []
        for number in range(len(texts)):
            buffer = io.BytesIO()
            soundfile.write(buffer, np.full(800 * (3 - number), 0.1), SAMPLING_RATE, format="FLAC")
            sounds.append({"bytes": buffer.getvalue(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"audio": pa.array(sounds, kind), "text": texts, "room": ["hall", "car", "car"][: len(texts)]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
    return str(tmp_path / "hub")


def test_parquet_is_scored_as_it_lies_there(settings, shards, tmp_path):
    config = ScoreConfig(**{**settings, "manifest": shards}, by=("room",))
    score = score_model(config, tmp_path / "score.json")
    assert [one.duration_s for one in score.result.utterances] == pytest.approx([0.15, 0.1])
    assert score.result.score.wer.num_reference == 6
    assert [(one.name, one.num_errors) for one in score.report.groups if one.kind == "room"] == [
        ("car", 3),
        ("hall", 0),
    ]
    left_out = json.loads((tmp_path / "score.json").read_text())["left_out"]
    assert left_out == {"data/test-00000-of-00001.parquet/0000002": "the transcript is missing"}


def test_the_split_and_number_of_rows_are_chosen(shards):
    (first,) = read_speech(shards, SpeechQuery(limit=1)).utterances
    assert (first.text, first.corpus, first.split) == ("He came home.", "hub", "test")
    (trained,) = read_speech(shards, SpeechQuery(split="train")).utterances
    assert trained.text == "Never scored."
    with pytest.raises(ManifestError, match="no row of split validation"):
        read_speech(shards, SpeechQuery(split="validation"))


def test_further_columns_are_read_from_json_lines_and_broken_tables_are_refused(settings, tmp_path):
    table = tmp_path / "rooms.jsonl"
    table.write_text('{"id": 0, "room": "hall"}\n{"id": "1", "room": ""}\n', encoding="utf-8")
    speech = read_speech(str(settings["manifest"]), SpeechQuery(by=("room", "speaker")), table=table)
    assert speech.columns["room"] == {"0": "hall"}
    assert speech.columns["speaker"]["1"] == "s1"
    table.write_text('{"room": "hall"}\n', encoding="utf-8")
    with pytest.raises(ManifestError, match="an id in every row"):
        read_speech(str(settings["manifest"]), SpeechQuery(by=("room",)), table=table)
