"""Where an exported decoder looks while it reads given tokens: what words are timed by.

Shapes: H heads, T tokens, P positions of sound (50 per second), D model width, V vocabulary.
"""

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from sottovoce.model.variants import ALIGNMENT_SCORES


def read_attention(
    decoder: onnxruntime.InferenceSession,
    encoded: NDArray[np.float32],
    empty_caches: Mapping[str, onnxruntime.OrtValue],
    token_ids: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read prefix, text and end token of one window at once.

    Args:
        decoder: the merged decoder, exported with its alignment scores.
        encoded: (1, P, D) from the encoder.
        empty_caches: for a batch of one; the branch without a cache ignores them, and the graph asks for them.
        token_ids: (T,), the last of them the end token; tokens of text have lower ids.

    Returns:
        Scores (H, T, P), and the probabilities (T - 1,) of the tokens from the second on, among the tokens of text; 0
        for those that are none.
    """
    inputs = {
        "input_ids": onnxruntime.OrtValue.ortvalue_from_numpy(token_ids[None]),
        "encoder_hidden_states": onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(encoded)),
        "use_cache_branch": onnxruntime.OrtValue.ortvalue_from_numpy(np.array([False])),
    }
    outputs = decoder.run_with_ort_values(["logits", ALIGNMENT_SCORES], {**inputs, **empty_caches})
    logits, scores = (output.numpy()[0] for output in outputs)
    return scores, text_probabilities(logits[:-1], token_ids[1:], end_id=int(token_ids[-1]))


def text_probabilities(
    logits: NDArray[np.float32], token_ids: NDArray[np.int64], *, end_id: int
) -> NDArray[np.float32]:
    """Give the probability of each token among the tokens of text.

    Args:
        logits: (T, V) that each token was written from.
        token_ids: (T,).
        end_id: tokens of text have lower ids.

    Returns:
        (T,), 0 for tokens that are no text.
    """
    is_text = token_ids < end_id
    probabilities = np.zeros(len(token_ids), dtype=np.float32)
    among = logits[is_text, :end_id]
    chosen = among[np.arange(len(among)), token_ids[is_text]]
    peaks = among.max(axis=1, initial=-np.inf)
    np.subtract(among, peaks[:, None], out=among)
    np.exp(among, out=among)
    probabilities[is_text] = np.exp(chosen - peaks) / among.sum(axis=1)
    return probabilities
