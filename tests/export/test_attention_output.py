"""What an exported decoder tells about where it looks."""

import numpy as np
import onnx
import pytest
import torch

from sottovoce.errors import CheckpointError
from sottovoce.export.onnx import export_onnx
from sottovoce.model.checkpoint import load_checkpoint
from sottovoce.model.labels import TokenKinds
from sottovoce.model.variants import ALIGNMENT_SCORES, PARTS, onnx_path
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.onnx_engine import text_probabilities
from sottovoce.words.cross_attention import alignment_heads, attend

WHISPER = TokenKinds(50_257, timestamps_from=50_364)

SCORE_TOLERANCE = 1e-4  # float32; 1.2e-5 with micro, whose scores reach 15
TOKENS = [50_258, 50_259, 50_359, 50_363, 440, 3_131, 50_363, 1_234, 50_257]
OPTIMUMS_OUTPUTS = {"logits"} | {
    f"present.0.{side}.{part}" for side in ("decoder", "encoder") for part in ("key", "value")
}


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_only_decoders_that_read_a_prefix_have_the_extra_output(tiny_export, variant):
    outputs = {
        part: [output.name for output in onnx.load(onnx_path(tiny_export / variant, part, variant)).graph.output]
        for part in PARTS
    }
    assert (
        set(outputs["decoder_model"]) == set(outputs["decoder_model_merged"]) == OPTIMUMS_OUTPUTS | {ALIGNMENT_SCORES}
    )
    assert outputs["decoder_model_merged"][0] == "logits"
    assert ALIGNMENT_SCORES not in outputs["decoder_with_past_model"] + outputs["encoder_model"]


def test_ordinary_steps_compute_no_scores(tiny_export):
    merged = onnx.load(onnx_path(tiny_export / "fp32", "decoder_model_merged", "fp32")).graph
    (branches,) = [node for node in merged.node if node.op_type == "If"]
    with_cache = next(attribute.g for attribute in branches.attribute if attribute.name == "then_branch")
    (made,) = [node for node in with_cache.node if ALIGNMENT_SCORES in node.output]
    assert made.op_type == "Constant"


def test_scores_and_probabilities_are_torchs(tiny_checkpoint, tiny_export):
    model = load_checkpoint(tiny_checkpoint).model
    spectrogram = np.random.default_rng(0).uniform(-1, 1, (3, 80, 400)).astype(np.float32)
    with torch.inference_mode():
        encoded = model.model.encoder(torch.from_numpy(spectrogram)).last_hidden_state
        expected = attend(model, encoded[1:2], TOKENS, heads=alignment_heads(model), kinds=WHISPER)
    session = load_recognizer(tiny_export, variant="fp32")._open_session(spectrogram)
    scores, probabilities = session.attend(1, TOKENS, WHISPER)
    assert scores.shape == (2, len(TOKENS), 200)
    np.testing.assert_allclose(scores, expected.scores, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=SCORE_TOLERANCE)


def test_tokens_that_are_no_text_have_no_probability():
    logits = np.log(np.array([[1.0, 3.0, 4.0], [2.0, 2.0, 9.0], [1.0, 1.0, 1.0]], dtype=np.float32))
    found = text_probabilities(logits, np.array([1, 0, 2]), kinds=TokenKinds(2, 3))
    assert found.tolist() == pytest.approx([0.75, 0.5, 0.0])
    assert text_probabilities(logits, np.array([2, 2, 2]), kinds=TokenKinds(2, 3)).tolist() == [0.0, 0.0, 0.0]


def test_heads_the_decoder_lacks_are_named_before_anything_is_traced(tiny_checkpoint, tmp_path):
    checkpoint = load_checkpoint(tiny_checkpoint)
    checkpoint.model.generation_config.alignment_heads = [[5, 0]]
    with pytest.raises(CheckpointError, match="derive_alignment_heads"):
        export_onnx(checkpoint, tmp_path / "fp32")
    assert not (tmp_path / "fp32").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # optimum and transformers speak of their own settings
def test_optimum_reads_the_export_as_before(tiny_checkpoint, tiny_export):
    from optimum.onnxruntime import ORTModelForSpeechSeq2Seq  # takes seconds to import

    folder = tiny_export / "fp32"
    reader = ORTModelForSpeechSeq2Seq.from_pretrained(
        folder, subfolder="onnx", config=load_checkpoint(tiny_checkpoint).model.config, use_merged=True
    )
    spectrogram = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 80, 3_000)).astype(np.float32))
    prefix = torch.tensor([TOKENS[:4]] * 2)
    model = load_checkpoint(tiny_checkpoint).model
    with torch.inference_mode():
        theirs = reader(input_features=spectrogram, decoder_input_ids=prefix).logits
        ours = model(input_features=spectrogram, decoder_input_ids=prefix).logits
    np.testing.assert_allclose(theirs.numpy(), ours.numpy(), atol=SCORE_TOLERANCE)
