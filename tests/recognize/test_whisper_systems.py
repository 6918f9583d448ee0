"""The systems of the benchmarks beside peers, with the embedded model: their texts, and the file that keeps them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from benchmarks.recognized_texts import recognize_all
from benchmarks.whisper_systems import Engine, ModelFolders, System, load_system, require_engines
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.errors import ConfigError
from sottovoce.schema import SAMPLING_RATE, Utterance

OURS = System(model="base", engine="sottovoce", variant="torch", long_form="sequential")
PEER = System(model="base", engine="openai-whisper", variant="float32", long_form="sequential")


@pytest.fixture
def folders(micro_assets: Path) -> ModelFolders:
    return ModelFolders(checkpoint=micro_assets, export=Path("unused"), converted=Path("unused"))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("spoken")
    found: list[Utterance] = []
    for number, one in enumerate(speak_timed(2, voices=UNSEEN_VOICES, max_s=6.0, seed=1)):
        path = folder / f"{number}.wav"
        soundfile.write(path, one.waveform, SAMPLING_RATE)
        duration_s = len(one.waveform) / SAMPLING_RATE
        found.append(Utterance(id=f"u{number}", audio=str(path), duration_s=duration_s, text="any"))
    return found


def recognize(system: System, spoken: list[Utterance], folders: ModelFolders, path: Path) -> list[str]:
    return recognize_all(system, spoken, folders={"base": folders}, num_threads=1, path=path)


@pytest.mark.slow
def test_a_stopped_run_recognizes_what_is_missing_alone(
    spoken: list[Utterance], folders: ModelFolders, tmp_path: Path
) -> None:
    path = tmp_path / "texts" / "ours.json"
    whole = recognize(OURS, spoken, folders, path)
    assert all(whole)
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["texts"] = {"u0": "kept, not recognized"}
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert recognize(OURS, spoken, folders, path) == ["kept, not recognized", whole[1]]
    kept["weights"] = "others"
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert recognize(OURS, spoken, folders, path) == whole


def test_a_complete_file_needs_no_model(spoken: list[Utterance], tmp_path: Path) -> None:
    nowhere = ModelFolders(checkpoint=tmp_path / "none", export=tmp_path, converted=tmp_path)
    path = tmp_path / "texts.json"
    path.write_text(json.dumps({"weights": nowhere.fingerprint, "texts": {"u1": "two", "u0": "one"}}), encoding="utf-8")
    assert recognize(OURS, spoken, nowhere, path) == ["one", "two"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # openai-whisper 20250625 leaves a file open
def test_openai_whisper_writes_the_same_sentence_in_both_forms(
    spoken: list[Utterance], folders: ModelFolders, tmp_path: Path
) -> None:
    pytest.importorskip("whisper", reason="openai-whisper is in the extra dev")
    ours = recognize(OURS, spoken[:1], folders, tmp_path / "ours.json")
    assert recognize(PEER, spoken[:1], folders, tmp_path / "long.json") == ours
    assert recognize(replace(PEER, long_form=None), spoken[:1], folders, tmp_path / "short.json") == ours


@pytest.mark.parametrize("engine", ["faster-whisper", "openai-whisper"])
def test_peers_have_no_chunked_algorithm(engine: Engine, folders: ModelFolders) -> None:
    system = System(model="base", engine=engine, variant="float32", long_form="chunked")
    with pytest.raises(ConfigError, match=f"{engine} has no chunked algorithm"):
        load_system(system, {"base": folders}, num_threads=1)


def test_files_of_both_ways_of_decoding_have_different_names() -> None:
    assert OURS.name == "base-sottovoce-torch-sequential"
    assert System(model="base", engine="sottovoce", variant="torch").name == "base-sottovoce-torch"
    assert OURS.describe()["long_form"] == "sequential"


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_engines([OURS])
    monkeypatch.setattr("benchmarks.whisper_systems.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"openai-whisper is missing: pip install"):
        require_engines([OURS, PEER])
