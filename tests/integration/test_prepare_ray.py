"""Preparing a corpus on a real Ray: workers are killed, rows are poisoned, and every row is accounted for.

Two hundred killed workers and 50 000 rows: ``benchmarks/worker_kills.py``, which ``make endurance`` runs.
"""

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmarks.worker_kills import digests, killed_workers
from jobs.prepare_manifest import PrepareJob
from jobs.prepare_manifest import main as run_prepare
from sottovoce.audio.decode import read_audio
from sottovoce.audio.reference import read_bytes
from sottovoce.data.manifest import read_manifest, read_rejects, read_warnings
from sottovoce.data.prepare import PrepareConfig, prepare_corpus
from sottovoce.errors import TooManyRejectsError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("local_ray")]

NUM_ROWS, NUM_POISONED_PER_KIND = 3_000, 3
MAX_ROUNDS = 10
REJECTS = {
    "corrupt": "unreadable",
    "hollow": "empty",
    "nan": "non_finite",
    "instant": "empty",
    "latin": "wrong_encoding",
    "wordy": "label_too_long",
    "missing": "missing_file",
}
WARNINGS = {"eight_bit": "low_bit_depth", "fast": "unusual_rate", "octaphonic": "many_channels"}


def noise(num_samples: int, seed: int) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).uniform(-1.0, 1.0, num_samples)


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_killed_workers_leave_no_trace_in_the_output(tmp_path: Path):
    for number in range(8):
        soundfile.write(tmp_path / f"{number}.wav", noise(8 * 44_100, number), 44_100)
    rows = [{"id": f"{i:04d}", "audio": f"{i % 8}.wav", "text": f"row {i}", "speaker": f"{i % 5}"} for i in range(500)]
    rows[7] |= {"audio": "missing.wav"}
    rows[400] |= {"id": "0003"}
    corpus = write_rows(tmp_path / "corpus.jsonl", rows)
    prepare_corpus(corpus, tmp_path / "calm", PrepareConfig())
    prepare_while_workers_die(corpus, tmp_path, num_kills=2)
    ids = [row.id for row in read_manifest(tmp_path / "killed" / "manifest.jsonl")]
    rejects = [(row.id, row.reason) for row in read_rejects(tmp_path / "killed" / "rejects.jsonl")]
    assert rejects == [("0007", "missing_file"), ("0003", "duplicate_id")]
    assert ids == [f"{i:04d}" for i in range(500) if i not in (7, 400)]


def prepare_while_workers_die(corpus: Path, folder: Path, *, num_kills: int) -> None:
    """Prepare into "killed" until enough workers have died in the midst of it, and compare each time with "calm"."""
    killed: set[int] = set()
    for _ in range(MAX_ROUNDS):
        shutil.rmtree(folder / "killed", ignore_errors=True)
        with killed_workers(num_kills=num_kills, pause_s=0.1) as killer:
            prepare_corpus(corpus, folder / "killed", PrepareConfig())
            killed |= set(killer.killed)
        assert digests(folder / "killed") == digests(folder / "calm")
        if len(killed) >= num_kills:  # a fast machine is done sooner than so many have died
            return
    pytest.fail(f"only {len(killed)} workers were met in the midst of their work")


def write_poison(folder: Path, kind: str, number: int) -> bytes:
    """Write one poisoned recording, if there is to be one, and give its row."""
    name, sound = f"{kind}-{number}", noise(16_000, number)
    path = folder / f"{name}.wav"
    writers: dict[str, Callable[[], object]] = {
        "corrupt": lambda: path.write_bytes(np.random.default_rng(number).bytes(2_000)),
        "hollow": lambda: path.write_bytes(b""),
        "nan": lambda: soundfile.write(path, np.append(sound, np.nan), 16_000, subtype="FLOAT"),
        "instant": lambda: soundfile.write(path, sound[:0], 16_000),
        "eight_bit": lambda: soundfile.write(path, sound, 16_000, subtype="PCM_U8"),
        "fast": lambda: soundfile.write(path, np.repeat(sound, 6), 96_000),
        "octaphonic": lambda: soundfile.write(path, np.stack([sound] * 8, axis=1), 16_000),
        "missing": lambda: None,
    }
    writers.get(kind, lambda: soundfile.write(path, sound, 16_000))()
    text = {"wordy": "many words " * 300, "latin": "caf\xe9"}.get(kind, "said")
    row = json.dumps({"id": name, "audio": path.name, "text": text}, ensure_ascii=False)
    return row.encode("latin-1")


def test_one_percent_poison_is_named_row_by_row_and_no_good_row_is_lost(tmp_path: Path):
    for number in range(50):
        soundfile.write(tmp_path / f"{number}.wav", noise(4_000 + 200 * number, number), 16_000)
    kinds = [*REJECTS, *WARNINGS]
    poisoned = {100 * i + 37: kinds[i % len(kinds)] for i in range(NUM_POISONED_PER_KIND * len(kinds))}
    rows = [
        write_poison(tmp_path, poisoned[i], i)
        if i in poisoned
        else json.dumps({"id": f"good-{i}", "audio": f"{i % 50}.wav", "text": f"row {i}"}).encode()
        for i in range(NUM_ROWS)
    ]
    (tmp_path / "corpus.jsonl").write_bytes(b"\n".join(rows))
    prepare_corpus(tmp_path / "corpus.jsonl", tmp_path / "out", PrepareConfig())

    rejects = {row.id: row.reason for row in read_rejects(tmp_path / "out" / "rejects.jsonl")}
    warnings = [(row.id, row.kind) for row in read_warnings(tmp_path / "out" / "warnings.jsonl")]
    assert rejects == {f"{kind}-{i}": REJECTS[kind] for i, kind in poisoned.items() if kind in REJECTS}
    assert warnings == [(f"{kind}-{i}", WARNINGS[kind]) for i, kind in poisoned.items() if kind in WARNINGS]
    ids = Counter(row.id for row in read_manifest(tmp_path / "out" / "manifest.jsonl"))
    good = [f"good-{i}" for i in range(NUM_ROWS) if i not in poisoned]
    assert ids == Counter([*good, *(row_id for row_id, _ in warnings)])


def write_shards(folder: Path) -> Path:
    """Three shards of rows with their audio; the second holds an unreadable recording, an id twice and Latin-1."""
    (folder / "data").mkdir(parents=True)
    for shard, num_rows in enumerate((150, 170, 90)):
        sounds = []
        for number in range(num_rows):
            file = io.BytesIO()
            soundfile.write(file, noise(48_000 + 50 * number, 1_000 * shard + number), 16_000, format="FLAC")
            sounds.append({"bytes": file.getvalue(), "path": "x.flac"})
        texts = [f"row {number}".encode() for number in range(num_rows)]
        ids = [None if number % 2 else f"{shard}-{number}" for number in range(num_rows)]
        if shard == 1:
            sounds[5]["bytes"], ids[20], texts[31] = b"no audio", "1-18", b"caf\xe9"
        text = pa.array(texts, pa.binary()).cast(pa.string(), safe=False)
        name = f"{'test' if shard == 2 else 'train'}-{shard:05d}-of-00003.parquet"
        table = pa.table({"id": ids, "audio": sounds, "text": text})
        pq.write_table(table, folder / "data" / name, row_group_size=40)
    return folder


def test_parquet_streams_in_order_and_killed_workers_leave_no_trace(tmp_path: Path):
    corpus = write_shards(tmp_path / "corpus")
    prepare_corpus(corpus, tmp_path / "calm", PrepareConfig())
    prepare_while_workers_die(corpus, tmp_path, num_kills=1)
    rejects = [(row.id, row.reason, row.audio) for row in read_rejects(tmp_path / "killed" / "rejects.jsonl")]
    second = "data/train-00001-of-00003.parquet"
    assert rejects == [
        (f"{second}/0000005", "unreadable", f"{corpus / second}#row=5"),
        ("1-18", "duplicate_id", f"{corpus / second}#row=20"),
        (f"{second}/0000031", "wrong_encoding", f"{corpus / second}#row=31"),
    ]
    utterances = read_manifest(tmp_path / "killed" / "manifest.jsonl")
    assert len(utterances) == 407
    assert sum(row.split == "test" for row in utterances) == 90
    for row in (utterances[3], utterances[200], utterances[-1]):
        assert len(read_audio(row.audio)) == round(row.duration_s * 16_000)
    place = 90 + 150 + 54 - 3  # the test shard comes first by name; three rows of the second are rejects
    assert utterances[place].text == "row 54"
    assert utterances[place].audio.startswith(f"{tmp_path / 'killed' / 'recordings'}/")
    assert read_bytes(utterances[place].audio) == read_bytes(f"{corpus / second}#row=54")


def test_too_many_rejects_fail_the_job_after_everything_is_written(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", noise(16_000, 0), 16_000)
    rows: list[dict[str, object]] = [{"audio": "a.wav", "text": "said"}, {"audio": "b.wav", "text": "said"}]
    corpus = write_rows(tmp_path / "corpus.jsonl", rows)
    with pytest.raises(TooManyRejectsError, match="1 of 2 rows"):
        run_prepare(
            PrepareJob(corpus=str(corpus), output=tmp_path / "out", prepare=PrepareConfig(max_reject_fraction=0.4))
        )
    assert (tmp_path / "out" / "report.html").is_file()
    assert len(read_manifest(tmp_path / "out" / "manifest.jsonl")) == 1
    assert len(read_rejects(tmp_path / "out" / "rejects.jsonl")) == 1
    assert read_warnings(tmp_path / "out" / "warnings.jsonl") == []
