"""Windows of several contexts in one batch of an ONNX model."""

import shutil

import numpy as np
import onnx
import pytest

from sottovoce.model.variants import ATTENTION_BIAS, onnx_path
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import DecodeOptions

OPTIONS = DecodeOptions(max_new_tokens=20)


def waveforms() -> list[np.ndarray]:
    """Noise of ten lengths, 2.1 to 6.6 s, in no order; each has a context of its own."""
    generator = np.random.default_rng(0)
    lengths = np.linspace(2.1, 6.6, 10)[generator.permutation(10)]
    return [(0.1 * generator.standard_normal(round(length * 16_000))).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("options", [OPTIONS, DecodeOptions(max_new_tokens=12, beam_size=3, timestamps=True)])
def test_windows_of_ten_contexts_share_a_batch_and_are_written_to_the_bit_as_alone(tiny_export, variant, options):
    recognizer, windows = load_recognizer(tiny_export, variant=variant), waveforms()
    (decoding,) = recognizer.decode_in_steps(windows, [options] * 10)
    assert sorted(decoding.indices) == list(range(10))
    together = recognizer.recognize(windows, [options] * 10)
    alone = [recognizer.recognize([window], [options])[0] for window in windows]
    assert together == alone
    assert len({result.token_ids for result in together}) > 1


def test_a_batch_that_is_too_large_is_cut_into_windows_of_similar_length(tiny_export):
    recognizer, windows = load_recognizer(tiny_export, variant="int8"), waveforms() * 2
    batches = [decoding.indices for decoding in recognizer.decode_in_steps(windows, [OPTIONS] * 20)]
    assert [len(batch) for batch in batches] == [16, 4]
    assert max(len(windows[index]) for index in batches[0]) <= min(len(windows[index]) for index in batches[1])


def test_an_export_without_the_input_reads_one_context_at_a_time(tiny_export, tmp_path):
    shutil.copytree(tiny_export / "fp32", tmp_path / "fp32")
    path = onnx_path(tmp_path / "fp32", "decoder_model_merged", "fp32")
    model = onnx.load(path)
    model.graph.input.remove(next(entry for entry in model.graph.input if entry.name == ATTENTION_BIAS))
    onnx.save(model, path)  # the default is a constant now
    recognizer, windows = load_recognizer(tmp_path, variant="fp32"), waveforms()
    assert len(recognizer.decode_in_steps(windows, [OPTIONS] * 10)) == 10
    expected = load_recognizer(tiny_export, variant="fp32").recognize(windows, [OPTIONS] * 10)
    found = recognizer.recognize(windows, [OPTIONS] * 10)
    assert [result.token_ids for result in found] == [result.token_ids for result in expected]
