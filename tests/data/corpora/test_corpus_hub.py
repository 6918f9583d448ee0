"""A data set of the Hub, streamed from a server on this machine that answers as the Hub does."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NUM_ROWS = 40
UNUSED_BYTES = 60_000_000  # of a column nobody asks for

READ = """
import ray
from sottovoce.data.corpora.parquet import list_rows, parquet_files, parse_parquet_row, stream_parquet
from sottovoce.data.corpora.read import detect_format
from sottovoce.audio.decode import decode_audio

location = "hf://datasets/user/dictation"
assert detect_format(location) == "parquet"
files = parquet_files(location)
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
rows = list(stream_parquet(location, files).iter_rows())
for row, (file, number) in zip(rows, list_rows(files), strict=True):
    parsed, audio = parse_parquet_row(row)
    print(file.row_reference(number), file.split, parsed.text, len(decode_audio(audio, source="x")))
"""


class Hub(ThreadingHTTPServer):
    """One data set with one shard; counts the bytes it gives away of the shard."""

    def __init__(self, shard: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.shard, self.num_bytes_given = shard, 0


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        shard = {
            "type": "file",
            "path": "data/train-00000-of-00001.parquet",
            "size": len(self.server.shard),
            "oid": "1",
        }
        folder = {"type": "directory", "path": "data", "size": 0, "oid": "2"}
        if path.startswith("/datasets/user/dictation/resolve/main/data/"):
            self._give_range()
        elif path == "/api/datasets/user/dictation/tree/main/data":
            self._give([shard])
        elif path == "/api/datasets/user/dictation/tree/main":
            self._give([folder, shard] if "recursive=True" in self.path else [folder])
        elif path in ("/api/datasets/user/dictation", "/api/datasets/user/dictation/revision/main"):
            self._give({"id": "user/dictation", "sha": "0" * 40})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._give([])

    def _give(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _give_range(self) -> None:
        start, stop = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self.server.shard[start : stop + 1]
        self.server.num_bytes_given += len(part)
        self._send(206, part, {"Content-Range": f"bytes {start}-{stop}/{len(self.server.shard)}"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def hub(tmp_path: Path, encode: Callable[..., bytes]) -> Iterator[Hub]:
    sounds = [{"bytes": encode(duration_s=0.1 + 0.01 * i), "path": f"{i}.flac"} for i in range(NUM_ROWS)]
    unused = [np.random.default_rng(i).bytes(UNUSED_BYTES // NUM_ROWS) for i in range(NUM_ROWS)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {"audio": pa.array(sounds, kind), "text": [f"Text {i}." for i in range(NUM_ROWS)], "vector": unused}
    )
    pq.write_table(table, tmp_path / "shard.parquet", compression="none", use_dictionary=False)
    hub = Hub((tmp_path / "shard.parquet").read_bytes())
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


@pytest.mark.ray
def test_a_hub_data_set_streams_without_being_downloaded_whole(hub: Hub, root: Path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(root / "platform"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    run = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3_000:]
    reference = "hf://datasets/user/dictation/data/train-00000-of-00001.parquet#row"
    lines = [f"{reference}={i} train Text {i}. {1_600 + 160 * i}" for i in range(NUM_ROWS)]
    assert [line for line in run.stdout.splitlines() if line.startswith("hf://")] == lines
    assert hub.num_bytes_given < len(hub.shard) / 2
