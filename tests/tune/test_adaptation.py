"""The measurement of an adaptation to trimmed contexts, and its report."""

from pathlib import Path

import pytest
import soundfile

from sottovoce.model.audio_context import AudioContext
from sottovoce.schema import Utterance
from sottovoce.tune import adaptation
from sottovoce.tune.adaptation import (
    AdaptationRecord,
    MarginResult,
    MeasuredSpeech,
    choose_margin,
    make_silences,
    measure_adaptation,
)
from sottovoce.tune.adaptation_report import PAGE_FILE, adaptation_table, publish_adaptation

SYSTEMS = ("base, padded", "base, trimmed", "adapted, trimmed", "adapted, padded")


@pytest.fixture(scope="module")
def record(tiny_checkpoint: Path, tmp_path_factory, speech_like) -> AdaptationRecord:
    folder = tmp_path_factory.mktemp("speech")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(adaptation, "FALLBACK_TEMPERATURES", (0.0,))  # no text of a random model is plausible
    monkeypatch.setattr(adaptation, "_SILENCES_S", (1.0,))
    utterances = []
    for index, waveform in enumerate(speech_like[1:7:2]):
        soundfile.write(folder / f"{index}.wav", waveform, 16_000)
        utterances.append(
            Utterance(
                id=str(index),
                audio=str(folder / f"{index}.wav"),
                duration_s=len(waveform) / 16_000,
                text="what was said",
                language=("en", "de", "en")[index],
                split="test",
            )
        )
    measured = measure_adaptation(
        str(tiny_checkpoint),
        tiny_checkpoint,
        context=AudioContext(2.0, 10.0),
        speech=MeasuredSpeech(utterances[:1], utterances, is_scored_by_people=True),
        normalizer="basic",
        num_threads=1,
    )
    monkeypatch.undo()
    return measured


def test_four_systems_are_scored_by_language_and_duration(record: AdaptationRecord) -> None:
    assert tuple(one.system for one in record.systems) == SYSTEMS
    assert list(dict.fromkeys(one.group for one in record.groups)) == [
        "all",
        "de",
        "en",
        "0 to 2 s",
        "2 to 5 s",
    ]
    for system in SYSTEMS:
        whole = record.find(system)
        assert (whole.num_utterances, whole.num_words) == (3, 9)
        assert record.find(system, "de").num_utterances == 1
        assert whole.wer_low <= whole.wer <= whole.wer_high
    assert all(one.rtfx > 0 for one in record.systems)


def test_equal_weights_at_equal_contexts_write_the_same(record: AdaptationRecord) -> None:
    for one, other in (("base, padded", "adapted, padded"), ("base, trimmed", "adapted, trimmed")):
        assert record.find(one).wer == record.find(other).wer
    assert [one.margin_s for one in record.margins] == [0.5, 1.0]
    assert record.margin_s in (0.5, 1.0)


def test_the_shortest_margin_that_costs_next_to_nothing_is_chosen() -> None:
    def chosen(*wers: float) -> float:
        pairs = zip((0.0, 0.5, 1.0), wers, strict=True)
        return choose_margin([MarginResult(margin_s=margin_s, wer=wer) for margin_s, wer in pairs])

    assert chosen(0.10, 0.10, 0.10) == 0.0
    assert chosen(0.1024, 0.10, 0.10) == 0.0
    assert chosen(0.11, 0.1024, 0.10) == 0.5
    assert chosen(0.11, 0.11, 0.10) == 1.0


def test_silences_are_no_longer_than_the_model_reads() -> None:
    silences = make_silences(10.0)
    assert max(map(len, silences)) == 160_000
    assert not silences[0].any()
    assert 0 < abs(silences[-1]).max() < 0.01


def test_table_and_page_have_every_group(record: AdaptationRecord, tmp_path: Path) -> None:
    publish_adaptation(record, tmp_path)
    page, table = (tmp_path / PAGE_FILE).read_text(), adaptation_table(record)
    for text in ("adapted, trimmed", "2 to 5 s", "de"):
        assert text in page
        assert text in table
    assert "The references are what people wrote." in page
    assert AdaptationRecord.model_validate_json((tmp_path / "adaptation.json").read_bytes()) == record
