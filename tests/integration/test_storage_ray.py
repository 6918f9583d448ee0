"""Storage that does not answer, on a real Ray: the job fails and says why, and no row is rejected for it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from storage_server import storage_server

from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.manifest import read_manifest
from sottovoce.data.mixing import Speech
from sottovoce.data.prepare import PrepareConfig, prepare_corpus
from sottovoce.errors import StorageError
from sottovoce.schema import Utterance

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

FORBIDDEN = "403/999"


@pytest.fixture(scope="module")
def server(local_ray: str) -> Iterator[str]:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.random.default_rng(0).uniform(-1.0, 1.0, 16_000), 16_000, format="WAV")
    with storage_server(buffer.getvalue()) as url:
        yield url.replace("//", "//me:hunter22@")


def write_rows(path: Path, server: str, names: list[str], **faults: str) -> Path:
    """Write rows of recordings; some are below a path that says how storage fails."""
    rows = [{"id": name, "audio": f"{server}/{faults.get(name, '200/0')}/{name}.wav", "text": "said"} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_storage_that_comes_back_costs_no_row(tmp_path: Path, server: str):
    corpus = write_rows(tmp_path / "corpus.jsonl", server, ["good", "shaky"], shaky="503/2")
    prepare_corpus(corpus, tmp_path / "out", PrepareConfig())
    assert [row.id for row in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["good", "shaky"]


def test_storage_that_stays_closed_fails_the_job_and_nothing_is_written(tmp_path: Path, server: str):
    names = [f"good{number}" for number in range(200)]
    corpus = write_rows(tmp_path / "corpus.jsonl", server, [*names, "forbidden"], forbidden=FORBIDDEN)
    with pytest.raises(StorageError, match=r"http://\.\.\.@127.0.0.1.*/forbidden.wav does not answer.*403") as caught:
        prepare_corpus(corpus, tmp_path / "out", PrepareConfig())
    assert "hunter22" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_storage_that_stays_closed_stops_training_with_its_name(tmp_path: Path, server: str):
    utterance = Utterance(
        id="a", audio=f"{server}/{FORBIDDEN}/forbidden.wav", duration_s=1.0, text="said", language="en"
    )
    config = DatasetConfig(manifest=(tmp_path / "manifest.jsonl",))
    speech = Speech(manifests=((utterance,),), rejects=())
    stream = build_stream(speech, config)
    with pytest.raises(Exception, match=r"StorageError: the storage of http://\.\.\.@127.0.0.1.*/forbidden.wav"):
        list(stream.batches(microbatches=(0,), num_microbatches=1, seed=0, first_step=0, last_step=1))
