import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve.settings import Limits
from sottovoce import schema
from sottovoce.audio.decode import decode_audio
from sottovoce.schema import DecodeOptions, Reject, Utterance, WindowResult


def make_utterance(**changes: object) -> Utterance:
    return Utterance.model_validate({"id": "a-1", "audio": "a/1.wav", "duration_s": 2.5, "text": "Hello.", **changes})


def test_constants_agree_with_each_other() -> None:
    assert schema.FRAMES_PER_SECOND == 100
    assert schema.POSITIONS_PER_SECOND * schema.MAX_CONTEXT_S == 1500
    assert schema.SAMPLING_RATE * schema.MAX_CONTEXT_S == 480_000


def test_the_limit_on_decoded_audio_is_written_once(root: Path) -> None:
    files = [path for folder in ("platform", "serve", "jobs") for path in (root / folder).rglob("*.py")]
    assert [path.name for path in files if re.search(r"\b7_?200\b", path.read_text(encoding="utf-8"))] == ["schema.py"]
    assert Limits().max_duration_s == schema.MAX_DURATION_S
    assert inspect.signature(decode_audio).parameters["max_duration_s"].default == schema.MAX_DURATION_S


def test_an_utterance_reads_back_from_its_own_json() -> None:
    utterance = make_utterance(speaker="s1", split="test", language="de", start_s=0.5, text="Grüße")
    assert Utterance.model_validate_json(utterance.model_dump_json()) == utterance


def test_a_short_manifest_line_is_english_training_speech_from_the_start() -> None:
    utterance = make_utterance()
    assert (utterance.language, utterance.split, utterance.start_s, utterance.speaker) == ("en", "train", 0.0, None)


@pytest.mark.parametrize(
    "changes",
    [{"duration_s": 0.0}, {"duration_s": -1.0}, {"start_s": -0.1}, {"split": "dev"}, {"text": None}, {"lenght": 3}],
)
def test_an_utterance_refuses_what_it_does_not_know(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_utterance(**changes)


def test_an_utterance_without_speech_has_empty_text() -> None:
    assert make_utterance(text="").text == ""


def test_records_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_utterance().text = "other"


def test_a_reject_names_one_of_the_known_reasons() -> None:
    assert Reject(id="a", audio="a.wav", reason="silent", detail="peak 0.0").reason == "silent"
    with pytest.raises(ValidationError, match="reason"):
        Reject.model_validate({"id": "a", "audio": "a.wav", "reason": "ugly", "detail": ""})


def test_decode_options_make_variants_and_can_be_keys() -> None:
    options = DecodeOptions()
    german = dataclasses.replace(options, language="de")
    assert {options: 1, german: 2}[DecodeOptions(language="de")] == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.language = "fr"  # type: ignore[misc]


def test_window_results_compare_by_value() -> None:
    fields = {"text": "one", "token_ids": (1, 2), "language": "en", "avg_logprob": -0.1, "no_speech_prob": 0.0}
    assert WindowResult(**fields) == WindowResult(**fields)  # type: ignore[arg-type]
