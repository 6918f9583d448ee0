"""Transformers' Whisper comes without scikit-learn."""

import subprocess
import sys

import pytest

CODE = """
import sys
sys.path[:0] = ["platform", "."]
import sottovoce.train.worker, transformers
assert "sklearn" not in sys.modules
assert transformers.utils.is_sklearn_available(), "what others ask is answered as before"
"""


@pytest.mark.slow
def test_a_training_worker_imports_no_scikit_learn_which_others_still_find(root):
    pytest.importorskip("sklearn")
    answer = subprocess.run(
        [sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
