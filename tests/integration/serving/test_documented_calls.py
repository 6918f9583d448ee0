"""The calls of docs/serving.md, copied out of it and run against a real service; what they print is what was said."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import srt

from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.text.score import score_texts

pytestmark = pytest.mark.serve

ROOT = Path(__file__).resolve().parents[3]
HEADING = "## Calling the service"
ADDRESS = "http://127.0.0.1:8000"
MAX_WER = 0.2  # measured 0 as text, and 0.15 with times: writing them, micro leaves out one of eight sentences


def blocks(readme: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block below the heading; none without it."""
    section = re.search(rf"^{HEADING}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```(bash|python)\n(.*?)^```", section[1] if section else "", re.MULTILINE | re.DOTALL)


BLOCKS = blocks((ROOT / "docs" / "serving.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def address(base_url: str) -> str:
    return base_url.removesuffix("/v1")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with speech.wav, of more than one window, and what is said in it."""
    folder = tmp_path_factory.mktemp("calls")
    sentences = speak_timed(3, voices=UNSEEN_VOICES, max_s=9.0, seed=3)
    pause = np.zeros(8_000, np.float32)
    waveform = np.concatenate([part for one in sentences for part in (one.waveform, pause)])
    soundfile.write(folder / "speech.wav", waveform, 16_000)
    return folder, " ".join(piece.text for one in sentences for piece in one.pieces)


def run(language: str, content: str, folder: Path) -> str:
    """Run a block as a script in the folder, and give what it prints."""
    assert shutil.which("curl"), "the first call needs curl"
    command = ["bash", "-ec", content] if language == "bash" else [sys.executable, "-c", content]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def words_of_lines(printed: str) -> str:
    """The last column of lines of times and a word or text."""
    return " ".join(line.split(maxsplit=2)[2] for line in printed.splitlines() if line[:1] in " 0123456789")


def subtitles(printed: str) -> str:
    lines = list(srt.parse(printed))
    assert lines[0].start < lines[0].end <= lines[-1].end
    return " ".join(line.content for line in lines)


READERS: dict[str, Callable[[str], str]] = {
    "response_format=srt": subtitles,
    "curl": lambda printed: json.loads(printed)["text"],
    "stream=True": str.strip,
    '["word"]': words_of_lines,
    "load_recognizer": words_of_lines,
    "OpenAI(": str.strip,
}
"""How the text is read from what a block prints that holds these letters; the first that fits counts."""


def kind(content: str) -> str:
    return next(sign for sign in READERS if sign in content)


def test_every_way_of_calling_is_shown() -> None:
    assert [kind(content) for _, content in BLOCKS] == list(dict.fromkeys(kind(content) for _, content in BLOCKS))
    assert {kind(content) for _, content in BLOCKS} == set(READERS)


@pytest.mark.parametrize(("language", "content"), BLOCKS, ids=[kind(content) for _, content in BLOCKS])
def test_a_call_of_readme_prints_what_was_said(language: str, content: str, address: str, spoken: tuple[Path, str]):
    folder, text = spoken
    assert "load_recognizer" in content or ADDRESS in content
    heard = READERS[kind(content)](run(language, content.replace(ADDRESS, address), folder))
    assert score_texts([text], [heard], normalizer="basic").wer.rate <= MAX_WER, heard
