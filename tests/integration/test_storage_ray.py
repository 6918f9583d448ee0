"""Storage that does not answer, on a real Ray: the job fails and says why, and no row is rejected for it."""

import http.server
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.data.dataset import DatasetConfig, build_stream
from sottovoce.data.manifest import read_manifest
from sottovoce.data.mixing import Speech
from sottovoce.data.prepare import PrepareConfig, prepare_corpus
from sottovoce.errors import StorageError
from sottovoce.schema import Utterance

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


class Answer(http.server.BaseHTTPRequestHandler):
    """/shaky says 503 twice, /forbidden 403 whatever comes, anything else is a recording."""

    data = b""
    counts: Counter[str] = Counter()  # noqa: RUF012

    def do_GET(self) -> None:
        self.counts[self.path] += 1
        is_shaky = self.path.startswith("/shaky") and self.counts[self.path] <= 2
        status = 403 if self.path.startswith("/forbidden") else 503 if is_shaky else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.data) if status == 200 else 0))
        self.end_headers()
        if status == 200 and self.command == "GET":
            self.wfile.write(self.data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(local_ray: str) -> Iterator[str]:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.random.default_rng(0).uniform(-1.0, 1.0, 16_000), 16_000, format="WAV")
    Answer.data = buffer.getvalue()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://me:hunter22@127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def write_rows(path: Path, server: str, names: list[str]) -> Path:
    rows = [{"id": name, "audio": f"{server}/{name}.wav", "text": "said"} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_storage_that_comes_back_costs_no_row(tmp_path: Path, server: str):
    corpus = write_rows(tmp_path / "corpus.jsonl", server, ["good", "shaky"])
    prepare_corpus(corpus, tmp_path / "out", PrepareConfig())
    assert [row.id for row in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["good", "shaky"]


def test_storage_that_stays_closed_fails_the_job_and_nothing_is_written(tmp_path: Path, server: str):
    names = [f"good{number}" for number in range(200)]
    corpus = write_rows(tmp_path / "corpus.jsonl", server, [*names, "forbidden"])
    with pytest.raises(StorageError, match=r"http://\.\.\.@127.0.0.1.*/forbidden.wav does not answer.*403") as caught:
        prepare_corpus(corpus, tmp_path / "out", PrepareConfig())
    assert "hunter22" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_storage_that_stays_closed_stops_training_with_its_name(tmp_path: Path, server: str):
    utterance = Utterance(id="a", audio=f"{server}/forbidden.wav", duration_s=1.0, text="said", language="en")
    config = DatasetConfig(manifest=(tmp_path / "manifest.jsonl",))
    speech = Speech(manifests=((utterance,),), rejects=())
    stream = build_stream(speech, config)
    with pytest.raises(Exception, match=r"StorageError: the storage of http://\.\.\.@127.0.0.1.*/forbidden.wav"):
        list(stream.batches(microbatches=(0,), num_microbatches=1, seed=0, first_step=0, last_step=1))
