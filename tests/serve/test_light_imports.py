"""Exported variants are served without torch and transformers, which take 10 s and 400 MB of each replica."""

import subprocess
import sys

import pytest

HEAVY = "{'torch', 'transformers', 'peft', 'sklearn'}"
LOADED = f"import sys; found = {HEAVY} & set(sys.modules); assert not found, found"
RECOGNIZED = """
import numpy as np
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import DecodeOptions
recognizer = load_recognizer(sys.argv[1], variant="int8")
silence = np.zeros(int(recognizer.context.min_s * 16_000), np.float32)
for timestamps in (False, True):
    recognizer.recognize([silence], [DecodeOptions(max_new_tokens=4, timestamps=timestamps, prompt="before")])
"""


def run(code: str, root, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['platform', '.']\n{code}\n{LOADED}", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("module", ["serve.gateway", "jobs.serve_model"])
def test_what_starts_the_service_and_its_gateways_imports_no_torch(root, module):
    answer = run(f"import {module}", root)
    assert answer.returncode == 0, answer.stderr


def test_an_exported_variant_is_loaded_and_run_without_torch(root, tiny_export):
    answer = run(RECOGNIZED, root, str(tiny_export))
    assert answer.returncode == 0, answer.stderr
