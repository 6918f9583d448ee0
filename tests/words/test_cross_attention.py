import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.labels import TokenKinds
from sottovoce.words.cross_attention import alignment_heads, all_heads, attend, attention_scores

WHISPER = TokenKinds(50_257, timestamps_from=50_364)

IDS = [50_258, 50_259, 50_359, 50_363, 2_425, 264, 11, 257, 50_257]
END = 50_257
TOLERANCE = 1e-5  # float32: the same products in another order


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def encoded(checkpoint: Checkpoint) -> torch.Tensor:
    spectrograms = torch.randn(1, 80, 300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return checkpoint.model.model.encoder(spectrograms).last_hidden_state


def test_weights_are_those_of_eager_attention(tiny_checkpoint, checkpoint: Checkpoint, encoded: torch.Tensor) -> None:
    eager = WhisperForConditionalGeneration.from_pretrained(
        tiny_checkpoint, local_files_only=True, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        output = eager.model.decoder(
            input_ids=torch.tensor([IDS]), encoder_hidden_states=encoded, output_attentions=True, use_cache=False
        )
        probabilities = eager.proj_out(output.last_hidden_state)[0, :-1, :END].softmax(dim=-1)
    attention = attend(checkpoint.model, encoded, IDS, heads=[(0, 1), (0, 0)], kinds=WHISPER)
    weights = torch.from_numpy(attention.scores).softmax(dim=-1)
    torch.testing.assert_close(weights, output.cross_attentions[0][0, [1, 0]], atol=TOLERANCE, rtol=0)
    expected = [float(row[token]) if token < END else 0.0 for row, token in zip(probabilities, IDS[1:], strict=True)]
    np.testing.assert_allclose(attention.probabilities, expected, atol=TOLERANCE)


def test_nothing_of_the_recording_stays_on_the_model(checkpoint: Checkpoint, encoded: torch.Tensor) -> None:
    attention_scores(checkpoint.model, encoded, IDS, heads=all_heads(checkpoint.model))
    assert not any(module._forward_pre_hooks for module in checkpoint.model.modules())


def test_heads_the_decoder_lacks_are_refused_with_the_remedy(tiny_checkpoint) -> None:
    model = load_checkpoint(tiny_checkpoint).model
    model.generation_config.alignment_heads = [[0, 0], [0, 2]]
    with pytest.raises(CheckpointError, match="derive_alignment_heads"):
        alignment_heads(model)


@pytest.mark.parametrize("named", [None, []])
def test_without_named_heads_the_upper_half_is_taken(micro_assets, named: list[list[int]] | None) -> None:
    model = load_checkpoint(micro_assets).model
    model.generation_config.alignment_heads = named
    assert alignment_heads(model) == ((1, 0), (1, 1), (1, 2))
    assert len(all_heads(model)) == 6
