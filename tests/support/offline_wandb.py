"""Reads the files Weights & Biases writes offline; since 0.31 the package brings no reader of its own in Python."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 32_768
_FULL, _LAST = 1, 4


def read_history(path: Path) -> dict[int, dict[str, float]]:
    """Return the figures of each step, without those whose names begin with an underscore.

    Raises:
        AssertionError: a step stands there twice.
    """
    history: dict[int, dict[str, float]] = {}
    for record in _read_records(path):
        if record.WhichOneof("record_type") == "history":
            values = {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
            }
            assert values["_step"] not in history
            history[values["_step"]] = {name: value for name, value in values.items() if not name.startswith("_")}
    return history


def read_run(path: Path) -> tuple[str, str, str, dict[str, object]]:
    """Return the run's id, its project, its name and its configuration."""
    config: dict[str, object] = {}
    identity = ("", "", "")
    for record in _read_records(path):
        if record.WhichOneof("record_type") == "run":
            identity = (record.run.run_id, record.run.project, record.run.display_name)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.WhichOneof("record_type") == "config":
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
    return *identity, config


def _read_records(path: Path) -> Iterator["object"]:
    from wandb.proto.wandb_internal_pb2 import Record  # generated, and slow to import

    for content in _read_contents(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        yield record


def _read_contents(data: bytes) -> Iterator[bytes]:
    """Take LevelDB's log format apart: blocks of 32 KiB, in each of them checksum, length and kind before a piece."""
    assert data[:4] == b":W&B"
    position, pieces = 7, []
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, position)
        pieces.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (_FULL, _LAST):
            yield b"".join(pieces)
            pieces = []
