import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sottovoce.audio.decode import decode_audio, read_audio
from sottovoce.audio.native_messages import NativeMessages


@pytest.fixture(scope="module")
def mp3() -> bytes:
    buffer = io.BytesIO()
    sound = 0.3 * np.sin(np.arange(6 * 16_000) / 10) * np.abs(np.sin(np.arange(6 * 16_000) / 4_000))
    soundfile.write(buffer, sound, 16_000, format="MP3", subtype="MPEG_LAYER_III")
    return buffer.getvalue()


def damage(mp3: bytes, first: float) -> bytes:
    """Return it with 60 random bytes at a fraction of its length."""
    start = int(first * len(mp3))
    return mp3[:start] + np.random.default_rng(0).bytes(60) + mp3[start + 60 :]


@pytest.mark.parametrize("first", [0.1, 0.3])
def test_what_libmpg123_prints_is_logged_with_the_recordings_name(
    mp3: bytes, first: float, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / "damaged.mp3"
    path.write_bytes(damage(mp3, first))
    assert len(read_audio(path)) > 5.5 * 16_000
    (message,) = [text for text in caplog.messages if "libmpg123 says" in text]
    assert message.startswith(f"{path}: libmpg123 says: note: Illegal")
    assert capfd.readouterr().err == ""


def test_a_healthy_recording_is_not_mentioned(mp3: bytes, caplog: pytest.LogCaptureFixture):
    decode_audio(mp3, source="healthy")
    assert not caplog.records


def test_what_others_print_meanwhile_reaches_stderr(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    messages = NativeMessages()
    for line in ("of a thread\n", "Note: Trying to resync...\n", "Warning: one\n", "error: two\n", "Note: three\n"):
        with messages.captured():
            os.write(2, line.encode())
    assert capfd.readouterr().err == "of a thread\n"
    with caplog.at_level(logging.WARNING):
        messages.log("a.mp3")
    assert caplog.messages == ["a.mp3: libmpg123 says: note: Trying to resync...; warning: one; error: two; and 1 more"]


def test_stderr_is_restored_when_decoding_fails(capfd: pytest.CaptureFixture[str]):
    def fail() -> None:
        with NativeMessages().captured():
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        fail()
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_a_process_without_stderr_decodes(mp3: bytes, tmp_path: Path):
    (tmp_path / "a.mp3").write_bytes(damage(mp3, 0.3))
    code = "import sys; from sottovoce.audio.decode import read_audio; print(len(read_audio(sys.argv[1])))"
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    run = subprocess.run([*shell, sys.executable, "-c", code, tmp_path / "a.mp3"], stdout=subprocess.PIPE, check=True)
    assert int(run.stdout) > 5.5 * 16_000
