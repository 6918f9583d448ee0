from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from sottovoce.errors import TooManyRejectsError
from sottovoce.schema import Reject
from sottovoce.train import record as module
from sottovoce.train.config import TrainingConfig
from sottovoce.train.record import REJECTS_FILE, gather_rejects
from sottovoce.train.worker import WorkerLoop

BROKEN = Reject(id="u1", audio="a/1.flac", reason="unreadable", detail="cannot decode a/1.flac: no sync code")
LONG = Reject(id="u2", audio="a/2.flac", reason="label_too_long", detail="465 tokens")


class OtherRank(Accelerator):
    """Knows that another rank writes."""

    waited = False

    @property
    def is_main_process(self) -> bool:
        return False

    def wait_for_everyone(self) -> None:
        self.waited = True


def read(folder: Path) -> list[Reject]:
    lines = (folder / REJECTS_FILE).read_text(encoding="utf-8").splitlines()
    return [Reject.model_validate_json(line) for line in lines]


def gather(own: Sequence[Reject], folder: Path, *, accelerator: Accelerator | None = None) -> dict[str, Reject]:
    return gather_rejects(own, accelerator or Accelerator(cpu=True), output=folder, num_utterances=100, allowed=0.01)


def test_rejects_are_kept_with_audio_reason_and_detail(tmp_path: Path) -> None:
    assert gather([BROKEN], tmp_path) == {"u1": BROKEN}
    assert read(tmp_path) == [BROKEN]


def test_too_many_are_written_before_the_run_ends_and_the_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectsError, match=rf"2 of 100 rows.*see {tmp_path / REJECTS_FILE}, or raise"):
        gather([BROKEN, LONG], tmp_path)
    assert read(tmp_path) == [BROKEN, LONG]


def test_a_rank_that_does_not_write_waits_before_it_ends_the_run(tmp_path: Path) -> None:
    other = OtherRank(cpu=True)
    with pytest.raises(TooManyRejectsError):
        gather([BROKEN, LONG], tmp_path, accelerator=other)
    assert other.waited
    assert list(tmp_path.iterdir()) == []


def test_those_of_all_ranks_are_written_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gather_object", lambda own: [*own, BROKEN])
    assert gather([BROKEN], tmp_path) == {"u1": BROKEN}
    assert read(tmp_path) == [BROKEN]


def test_only_the_first_rank_writes_and_only_where_there_are_some(tmp_path: Path) -> None:
    assert gather([BROKEN], tmp_path, accelerator=OtherRank(cpu=True)) == {"u1": BROKEN}
    assert gather([], tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_validation_recordings_have_the_bound_of_their_own_split(tmp_path: Path) -> None:
    """One of ten may be lost, not two, however many utterances train; both are named before the run ends."""
    loop: Any = object.__new__(WorkerLoop)
    loop._rejects, loop._accelerator = {}, Accelerator(cpu=True)
    loop._config = TrainingConfig(max_reject_fraction=0.1)
    stream = SimpleNamespace(utterances=range(1_000))
    loop._task = SimpleNamespace(output=tmp_path, stream=stream, validation=range(10))
    loop._note_lost([BROKEN])
    assert read(tmp_path) == [BROKEN]
    with pytest.raises(TooManyRejectsError, match="2 of 10 rows were rejected"):
        loop._note_lost([BROKEN, LONG])
    assert read(tmp_path) == [BROKEN, LONG]
