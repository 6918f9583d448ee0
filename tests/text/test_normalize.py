import json
import subprocess
import sys

import pytest

from sottovoce.text.normalize import Normalizer, build_normalizer, normalize, read_spelling


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [("english", "2 cats are not here"), ("basic", "uh two cats aren t here"), ("none", "Uh, two  cats aren't here.")],
)
def test_each_normalizer_has_its_rules(normalizer: Normalizer, expected: str):
    assert normalize("Uh, two  cats\taren't here.\n", normalizer) == " ".join(expected.split())


def test_spellings_of_a_tokenizer_are_used(tmp_path):
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    assert normalize("Colour", "english", spelling=read_spelling(tmp_path)) == "color"
    assert normalize("Colour", "english") == "colour"


def test_a_tokenizer_without_spellings_has_none(tmp_path):
    assert read_spelling(tmp_path) == {}


def test_built_normalizer_equals_the_single_call():
    assert build_normalizer("basic")("Ça va?") == normalize("Ça va?", "basic")


def test_scoring_loads_neither_torch_nor_ray_before_a_normalizer_is_used():
    code = "import sys, sottovoce.text.score; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    environment_path = ":".join(path for path in sys.path if path)
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": environment_path}, check=False).returncode == 0
    )
