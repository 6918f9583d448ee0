from pathlib import Path

import numpy as np
import pytest
import torch
from openai_whisper import load_tokenizer
from transformers import WhisperForConditionalGeneration
from transformers.utils import ModelOutput

from benchmarks.openai_whisper import as_openai_whisper
from sottovoce.audio.features import log_mel
from sottovoce.demo.speech import Voice, speak
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint
from sottovoce.model.labels import TokenKinds, encode_labels
from sottovoce.schema import WordTime
from sottovoce.words.alignment import align_words, count_positions, leave_pauses_out, smooth_weights, time_words, warp
from sottovoce.words.cross_attention import all_heads, attend
from sottovoce.words.word_tokens import WordTokens, split_words

WHISPER = TokenKinds(50_257, timestamps_from=50_364)

TOLERANCE_S = 0.02  # one position of the encoder
PROBABILITY_TOLERANCE = 1e-4  # float32, another implementation of the same model
TEXT = "The doctor opened the small window, and my brother walked home."


def planted(starts: list[int], *, num_positions: int, padding: int = 0) -> np.ndarray:
    """Scores (1, T, P) of a head that looks from each start to the next, for 4 prefix tokens and an end token."""
    rows = [0, 0, 0, *starts, num_positions]
    scores = np.zeros((1, len(rows), num_positions + padding), dtype=np.float32)
    for row, (start, end) in enumerate(zip(rows, [*rows[1:], num_positions], strict=True)):
        scores[0, row, start : max(end, start + 1)] = 6.0
    scores[:, :, num_positions:] = 9.0  # padding that would draw all attention
    return scores


def words_of(*texts: str) -> list[WordTokens]:
    return [WordTokens(text, (100 + index,)) for index, text in enumerate(texts)]


def test_words_are_timed_where_the_head_looks_and_padding_counts_for_nothing() -> None:
    scores = planted([0, 20, 45, 60], num_positions=100, padding=50)  # three words, and the end at 60
    timed = time_words(
        scores, np.full(7, 0.5, np.float32), words_of(" a", " b", " c"), prefix_length=4, num_samples=32_000
    )
    assert [(word.text, word.probability) for word in timed] == [("a", 0.5), ("b", 0.5), ("c", 0.5)]
    assert [word.start_s for word in timed] == pytest.approx([0.0, 0.4, 0.9], abs=TOLERANCE_S)
    assert [word.end_s for word in timed] == pytest.approx([0.4, 0.9, 1.2], abs=TOLERANCE_S)


def test_punctuation_goes_with_its_word_and_adds_no_time() -> None:
    scores = planted([0, 10, 30, 40, 50, 60], num_positions=100)
    timed = time_words(
        scores, np.full(9, 0.5, np.float32), words_of(" “", "yes", "”", ",", " no"), prefix_length=4, num_samples=32_000
    )
    assert [word.text for word in timed] == ["“yes”,", "no"]
    assert timed[0].end_s == pytest.approx(0.6, abs=TOLERANCE_S)
    assert timed[1].start_s == pytest.approx(1.0, abs=TOLERANCE_S)


@pytest.mark.parametrize("seed", range(20))
def test_times_never_decrease_and_stay_within_the_window_whatever_the_scores(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_words, num_samples = int(random.integers(1, 40)), int(random.integers(0, 40_000))
    scores = (random.standard_normal((3, num_words + 5, 125)) * 10).astype(np.float32)
    waveform = np.repeat(random.uniform(0, 1, num_samples // 1_000 + 1) > 0.4, 1_000)[:num_samples].astype(np.float32)
    waveform *= random.standard_normal(num_samples).astype(np.float32)
    words = words_of(*[f" w{index}" for index in range(num_words)])
    timed = align_words(scores, np.zeros(num_words + 4, np.float32), words, prefix_length=4, waveform=waveform)
    times = [at_s for word in timed for at_s in (word.start_s, word.end_s)]
    assert len(timed) == num_words
    assert times == sorted(times)
    assert times[0] >= 0.0
    assert times[-1] <= num_samples / 16_000


def test_no_words_take_no_time() -> None:
    assert align_words(np.zeros((1, 5, 50), np.float32), np.zeros(4, np.float32), [], prefix_length=4,
                       waveform=np.zeros(16_000, np.float32)) == []  # fmt: skip


def test_a_position_that_all_tokens_see_alike_is_no_division_by_zero() -> None:
    assert np.isfinite(smooth_weights(np.zeros((2, 6, 30), np.float32), num_positions=20)).all()
    assert count_positions(0) == 1


def test_a_pause_belongs_to_no_word() -> None:
    words = [WordTime("a", 0.0, 0.5, 1.0), WordTime("b", 0.5, 1.5, 1.0), WordTime("c", 1.5, 2.0, 1.0)]
    moved = leave_pauses_out(words, [(0.45, 0.8), (1.52, 1.6)])
    assert [(word.start_s, word.end_s) for word in moved] == [(0.0, 0.45), (0.8, 1.52), (1.6, 2.0)]


def test_a_pause_far_from_both_ends_of_a_word_is_left_in_it() -> None:
    words = [WordTime("a", 0.0, 2.0, 1.0)]
    assert leave_pauses_out(words, [(0.9, 1.1)]) == words
    assert leave_pauses_out(words, []) == words


def test_of_two_words_near_the_end_of_a_pause_only_the_first_starts_there() -> None:
    words = [WordTime("what", 4.30, 5.50, 1.0), WordTime("your", 5.50, 5.76, 1.0)]
    moved = leave_pauses_out(words, [(4.30, 5.42)])
    assert [(word.start_s, word.end_s) for word in moved] == [(5.42, 5.50), (5.50, 5.76)]


def test_a_word_that_follows_a_pauses_first_word_stays_before_the_next_pause() -> None:
    words = [WordTime("what", 4.24, 5.52, 1.0), WordTime("your", 5.52, 5.76, 1.0), WordTime("country", 5.76, 6.26, 1.0)]
    moved = leave_pauses_out(words, [(4.29, 5.42), (5.57, 5.65)])
    assert [(word.start_s, word.end_s) for word in moved] == [(5.42, 5.52), (5.52, 5.57), (5.65, 6.26)]


def test_a_word_is_moved_by_two_pauses_in_a_row() -> None:
    moved = leave_pauses_out([WordTime("ask", 2.10, 3.72, 1.0)], [(2.02, 2.09), (2.11, 3.29)])
    assert [(word.start_s, word.end_s) for word in moved] == [(3.29, 3.72)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(0.0, 1.0), (1.0, 1.0), (1.0, 2.0)], [(0.0, 1.0), (1.0, 1.02), (1.02, 2.0)]),
        ([(0.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 2.0)], [(0.0, 1.0), (1.0, 1.02), (1.02, 1.04), (1.04, 2.0)]),
        ([(0.0, 1.0), (1.0, 1.0), (1.0, 1.0)], [(0.0, 0.96), (0.96, 0.98), (0.98, 1.0)]),
        ([(1.0, 1.0), (1.0, 1.01), (1.01, 2.0)], [(1.0, 1.02), (1.02, 1.04), (1.04, 2.0)]),
    ],
)
def test_every_word_has_a_length(times: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    moved = leave_pauses_out([WordTime("a", start, end, 1.0) for start, end in times], [])
    assert [(word.start_s, word.end_s) for word in moved] == [pytest.approx(pair) for pair in expected]


@pytest.fixture(scope="module")
def micro(micro_assets: Path) -> Checkpoint:
    return load_checkpoint(micro_assets)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return speak(TEXT, Voice(name="en-us"))


def read_speech(model: torch.nn.Module, speech: np.ndarray, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Read ids over 30 s of context with all heads."""
    spectrogram = torch.from_numpy(log_mel(speech, num_mel_bins=80, num_frames=3_000))[None]
    with torch.no_grad():
        encoded = model.model.encoder(spectrogram).last_hidden_state
    attention = attend(model, encoded, ids, heads=all_heads(model), kinds=WHISPER)
    return attention.scores, attention.probabilities


def test_smoothing_and_warping_give_transformers_own_token_times(
    micro_assets: Path, micro: Checkpoint, speech: np.ndarray
) -> None:
    """Over 30 s of context, where Hugging Face's own Whisper can run too; its weights are cut after their softmax."""
    ids = encode_labels(micro.tokenizer, TEXT, language="en")
    scores, _ = read_speech(micro.model, speech, ids)
    ours = warp(-smooth_weights(scores, num_positions=1_500).mean(axis=0)) / 50
    eager = WhisperForConditionalGeneration.from_pretrained(
        micro_assets, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        output = eager(
            input_features=torch.from_numpy(log_mel(speech, num_mel_bins=80, num_frames=3_000))[None],
            decoder_input_ids=torch.tensor([ids]),
            output_attentions=True,
        )
    written = ModelOutput(sequences=torch.tensor([ids]), cross_attentions=[output.cross_attentions])
    theirs = eager._extract_token_timestamps(written, all_heads(micro.model), num_input_ids=0)
    np.testing.assert_allclose(ours, theirs[0, :-1].numpy(), atol=TOLERANCE_S)


@pytest.mark.slow
def test_words_and_times_are_those_of_openai_whisper_on_the_same_weights(micro: Checkpoint, speech: np.ndarray) -> None:
    tokenizer = load_tokenizer()
    from whisper.timing import find_alignment, merge_punctuations

    ids = encode_labels(micro.tokenizer, TEXT, language="en")
    ours = time_words(
        *read_speech(micro.model, speech, ids),
        split_words(micro.tokenizer, ids[4:-1], language="en"),
        prefix_length=4,
        num_samples=len(speech),
    )
    model = as_openai_whisper(micro)
    spectrogram = torch.from_numpy(log_mel(speech, num_mel_bins=80, num_frames=3_000))
    theirs = find_alignment(model, tokenizer, ids[4:-1], spectrogram, num_frames=len(speech) // 160)
    merge_punctuations(theirs, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")  # noqa: RUF001
    theirs = [word for word in theirs if word.word.strip()]
    assert [word.text for word in ours] == [word.word.strip() for word in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.start_s == pytest.approx(other.start, abs=TOLERANCE_S)
        assert mine.end_s == pytest.approx(other.end, abs=TOLERANCE_S)
        assert mine.probability == pytest.approx(other.probability, abs=PROBABILITY_TOLERANCE)
