import json
import random
import shutil

import numpy as np
import pytest
import soundfile

from jobs.derive_alignment_heads import DeriveJob, main
from sottovoce.data.manifest import write_manifest
from sottovoce.demo.grammar import load_grammar
from sottovoce.demo.pool import speak_sentence
from sottovoce.errors import CheckpointError
from sottovoce.publish.outcome import derive_after_run
from sottovoce.schema import Utterance
from sottovoce.words import alignment_heads as word_timing
from sottovoce.words.alignment_heads import AlignmentRecord, derive_alignment_heads

MAX_ERROR_S = 0.1


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list[Utterance]:
    folder, generator = tmp_path_factory.mktemp("spoken"), random.Random(1)
    made = []
    for index in range(8):
        text, _, speech = speak_sentence(load_grammar("sentences"), generator, symbol="phrase", voices=["en-us"])
        path = folder / f"{index}.wav"
        soundfile.write(path, np.pad(speech, 800), 16_000, subtype="PCM_16")
        duration_s = len(speech) / 16_000 + 0.1
        made.append(Utterance(id=f"u{index}", audio=str(path), duration_s=duration_s, text=text, split="validation"))
    write_manifest(made, folder / "manifest.jsonl")
    return made


@pytest.fixture
def checkpoint(micro_assets, tmp_path):
    """A copy of micro that names heads its decoder lacks."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(micro_assets, folder)
    write_named(folder, [[0, 5]])
    return folder


def named(folder) -> list[list[int]]:
    return json.loads((folder / "generation_config.json").read_text())["alignment_heads"]


def write_named(folder, heads) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alignment_heads": heads}))


def test_heads_are_found_written_and_put_on_record(checkpoint, utterances):
    record = derive_alignment_heads(checkpoint, utterances, device="cpu")
    assert record.is_derived
    assert [list(head) for head in record.heads] == named(checkpoint)
    assert record.error_s <= MAX_ERROR_S
    assert record.error_before_s is None
    assert record.num_windows >= 2
    assert record.num_times == 2 * len(utterances)
    assert AlignmentRecord.model_validate_json(record.model_dump_json()) == record


def test_the_job_does_it_for_any_checkpoint(checkpoint, utterances, capsys):
    manifest = utterances[0].audio.replace("0.wav", "manifest.jsonl")
    main(DeriveJob(model=checkpoint, manifest=manifest, device="cpu"))
    printed = AlignmentRecord.model_validate_json(capsys.readouterr().out)
    assert [list(head) for head in printed.heads] == named(checkpoint)


def test_one_utterance_keeps_the_heads_and_says_why(checkpoint, utterances):
    record = derive_alignment_heads(checkpoint, utterances[:1], device="cpu")
    assert (record.heads, record.is_derived, record.error_s) == (((0, 5),), False, None)
    assert "1 utterance" in record.reason
    assert named(checkpoint) == [[0, 5]]


def test_a_run_comes_out_even_where_its_heads_cannot_be_derived(checkpoint, utterances):
    (checkpoint / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        derive_alignment_heads(checkpoint, utterances, device="cpu")
    record = derive_after_run(checkpoint, utterances, device="cpu")
    assert (record.heads, record.is_derived) == (((0, 5),), False)
    assert "cannot use the model" in record.reason


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), RuntimeError("CUDA error"), MemoryError()])
def test_a_run_comes_out_whatever_torch_or_the_disk_says(checkpoint, utterances, monkeypatch, fault):
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(word_timing, "choose_heads", fail)
    record = derive_after_run(checkpoint, utterances, device="cpu")
    assert (record.heads, record.is_derived) == (((0, 5),), False)
    assert type(fault).__name__ in record.reason
