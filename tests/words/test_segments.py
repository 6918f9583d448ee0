import numpy as np
import pytest
import torch

from sottovoce.model.labels import TokenKinds
from sottovoce.schema import TokenLogprob, WindowSegment
from sottovoce.words.segments import split_window

FROM = 100
KINDS = TokenKinds(50, FROM)
DURATION_S = 5.0


def at(seconds: float) -> int:
    return FROM + round(seconds * 50)


def words(token_ids: tuple[int, ...]) -> str:
    return "".join(f" {token}" for token in token_ids)


def split(*token_ids: int, duration_s: float = DURATION_S) -> tuple[list[tuple[float, float, str]], float | None]:
    segments, heard_s = split_window(token_ids, kinds=KINDS, decode_raw=words, duration_s=duration_s)
    return [(segment.start_s, segment.end_s, segment.text) for segment in segments], heard_s


def test_segments_stand_between_pairs_of_times_and_a_time_at_the_end_closes_the_window() -> None:
    assert split(at(0.0), 1, 2, at(2.34), at(2.5), 3, at(4.0)) == ([(0.0, 2.34, " 1 2"), (2.5, 4.0, " 3")], None)


def test_segments_keep_their_tokens_with_the_times() -> None:
    segments, _ = split_window(
        [at(0.0), 1, at(1.0), at(1.0), 2, at(2.0)], kinds=KINDS, decode_raw=words, duration_s=DURATION_S
    )
    assert segments[1] == WindowSegment(1.0, 2.0, " 2", (at(1.0), 2, at(2.0)))


@pytest.mark.parametrize("rest", [(), (3,), (3, 4, 5)])
def test_what_follows_the_last_pair_without_an_end_is_left_to_the_next_window(rest: tuple[int, ...]) -> None:
    assert split(at(0.0), 1, at(2.0), at(2.5), *rest) == ([(0.0, 2.0, " 1")], 2.0)


def test_words_without_a_pair_are_one_segment_from_their_first_to_their_last_time() -> None:
    assert split(at(1.0), 1, 2, at(3.0)) == ([(1.0, 3.0, " 1 2")], None)
    assert split(at(1.0), 1, 2) == ([(1.0, DURATION_S, " 1 2")], None)
    assert split(1, 2, at(3.0)) == ([(0.0, 3.0, " 1 2")], None)
    assert split(1, 2) == ([(0.0, DURATION_S, " 1 2")], None)


def test_nothing_and_times_alone_give_no_segment() -> None:
    assert split() == ([], None)
    assert split(at(0.0)) == ([], None)
    assert split(at(0.0), at(1.0), at(2.0)) == ([], 1.0)


def test_times_neither_decrease_nor_pass_the_windows_end() -> None:
    pieces, heard_s = split(at(2.0), 1, at(1.0), at(0.5), 2, at(9.0), at(9.5), 3)
    assert pieces == [(2.0, 2.0, " 1"), (2.0, DURATION_S, " 2")]
    assert heard_s is None


def test_each_segment_has_its_own_tokens_log_probabilities_after_a_blank_one_and_before_an_unfinished_rest() -> None:
    blank = 7
    ids = [at(0.0), blank, at(1.0), at(1.0), 1, 2, at(2.0), at(2.0), 3, at(3.0), at(3.0), 4]
    known = [TokenLogprob(str(token), -float(token), b"") for token in (blank, 1, 2, 3, 4)]
    segments, heard_s = split_window(
        ids,
        kinds=KINDS,
        decode_raw=lambda tokens: words(tokens) if blank not in tokens else " ",
        duration_s=DURATION_S,
        token_logprobs=known,
    )
    assert heard_s == 3.0
    assert [[token.text for token in segment.token_logprobs] for segment in segments] == [["1", "2"], ["3"]]
    without, _ = split_window(ids, kinds=KINDS, decode_raw=words, duration_s=DURATION_S)
    assert {segment.token_logprobs for segment in without} == {()}


def whisper_rule(token_ids: list[int], *, duration_s: float) -> tuple[list[tuple[float, float, str]], float | None]:
    """openai-whisper 20250625, transcribe.py lines 327 to 385, as it is written there for one window."""
    tokens = torch.tensor(token_ids)
    is_time = tokens.ge(FROM)
    single_ending = is_time[-2:].tolist() == [False, True]
    consecutive = (torch.where(is_time[:-1] & is_time[1:])[0] + 1).tolist()
    if not consecutive:
        times = tokens[is_time]
        end = (times[-1].item() - FROM) * 0.02 if len(times) and times[-1].item() != FROM else duration_s
        return [(0.0, end, words(tuple(t for t in token_ids if t < FROM)))], None
    slices = [*consecutive, len(tokens)] if single_ending else consecutive
    pieces, last = [], 0
    for current in slices:
        part = token_ids[last:current]
        text = words(tuple(token for token in part if token < FROM))
        pieces.append(((part[0] - FROM) * 0.02, (part[-1] - FROM) * 0.02, text))
        last = current
    return pieces, None if single_ending else (token_ids[last - 1] - FROM) * 0.02


@pytest.mark.parametrize("seed", range(50))
def test_segments_and_the_next_windows_start_are_whispers(seed: int) -> None:
    random = np.random.default_rng(seed)
    times = [0, *np.sort(random.choice(range(1, 240), size=8, replace=False))]
    ids: list[int] = []
    for index in range(random.integers(1, 5)):
        ids += [FROM + int(times[2 * index]), *random.integers(1, 50, 3).tolist(), FROM + int(times[2 * index + 1])]
    ids += [[], [ids[-1]], [ids[-1], 7]][random.integers(3)]
    expected, expected_heard_s = whisper_rule(ids, duration_s=DURATION_S)
    found, heard_s = split(*ids)
    assert [text for _, _, text in found] == [text for _, _, text in expected]
    assert np.allclose([piece[:2] for piece in found], [piece[:2] for piece in expected], atol=1e-9)
    assert heard_s == (None if expected_heard_s is None else pytest.approx(expected_heard_s))
