"""Are the verdicts on two models true?  ``python -m benchmarks.paired_verdicts --output FILE``.

Pairs of models with known truth read the same simulated test sets, and ``compare_counts`` judges them as
``jobs.score_manifest --against`` does. A false alarm names a winner between models of equal true error rates; power is
how often the truly better model is named. The sets differ in size, in the number of speakers, in how rare errors are,
and in loops, which put dozens of errors into one utterance.

Errors of an utterance are Poisson around its words times an error rate. The rate is a product of gamma distributed
factors: of the speaker and of the utterance, which both models share, and of the model with that speaker and with that
utterance. A model's true rate is over all speakers, also those who are not in the set; with fewer speakers than a
verdict on others needs, it is over the utterances of these, and the model's factor of the speaker is left out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import track

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.config import Config, load_config, setup_logging
from sottovoce.text.paired import FEWEST_SPEAKERS, compare_counts

QUESTION = "How often does a paired verdict name a winner between equal models, and how often the better of two?"
_SHARED_SPREAD = 0.5  # standard deviation of the factors of speakers and utterances; their mean is 1
_SPEAKER_SPREAD, _UTTERANCE_SPREAD = 0.25, 0.5  # of the model's factors
_WORDS_SPREAD = 0.5
_LOOP_WORDS = 40
_GAINS = (0.05, 0.1, 0.2, 0.4)  # share of its errors that the better model does not make


class VerdictBenchmark(Config):
    """Judge simulated pairs of models."""

    output: Path
    """JSON file that receives the result."""
    num_pairs: int = Field(default=200, ge=1)
    """Pairs of models for each kind of test set and each true difference."""
    num_equal_pairs: int = Field(default=1_000, ge=1)
    """Pairs of equal models for each kind of test set: 5 % of a thousand are known to 0.7 %."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One kind of test set."""

    name: str
    num_speakers: int
    utterances_each: int
    words: float = 12.0
    """Mean words of an utterance."""
    error_rate: float = 0.1
    loop_probability: float = 0.0
    """Share of the utterances in which a model repeats a phrase without end."""
    names_speakers: bool = True


SITUATIONS = (
    Situation(name="one speaker", num_speakers=1, utterances_each=40),
    Situation(name="3 speakers, for these alone", num_speakers=3, utterances_each=40),
    Situation(name="6 speakers", num_speakers=6, utterances_each=30),
    Situation(name="12 speakers", num_speakers=12, utterances_each=30),
    Situation(name="40 speakers (as LibriSpeech's tests)", num_speakers=40, utterances_each=60),
    Situation(
        name="300 utterances, a speaker each, unnamed", num_speakers=300, utterances_each=1, names_speakers=False
    ),
    Situation(name="12 speakers, rare errors", num_speakers=12, utterances_each=5, words=6.0, error_rate=0.02),
    Situation(name="12 speakers, loops", num_speakers=12, utterances_each=30, loop_probability=0.01),
)
UNCOVERED = Situation(
    name="beyond what is promised: 12 speakers, unnamed", num_speakers=12, utterances_each=30, names_speakers=False
)
"""What happens where the manifest has no speakers, though there are several utterances of each."""


def main(config: VerdictBenchmark) -> None:
    """Simulate, judge, write and print."""
    setup_logging()
    machine = describe_machine(("numpy", "scipy"))
    generator = np.random.default_rng(config.seed)
    rows = [
        judge_pairs(one, config.num_pairs, generator, num_equal_pairs=config.num_equal_pairs)
        for one in track((*SITUATIONS, UNCOVERED), description="judging")
    ]
    total: Row = {
        "test_set": "all that is promised",
        "false_alarms": float(np.mean([row["false_alarms"] for row in rows[:-1]])),
        "num_equal_pairs": config.num_equal_pairs * len(SITUATIONS),
    }
    write_result(config.output, QUESTION, [*rows, total], machine=machine)
    print_table(QUESTION, [*rows, total])


def judge_pairs(
    situation: Situation, num_pairs: int, generator: np.random.Generator, *, num_equal_pairs: int
) -> dict[str, Any]:
    """Return how often a verdict names one of equal models and, by true gain, how often it names the better one."""
    alarms = [_judge(situation, 0.0, generator) for _ in range(num_equal_pairs)]
    row: dict[str, Any] = {
        "test_set": situation.name,
        "num_speakers": situation.num_speakers,
        "num_utterances": situation.num_speakers * situation.utterances_each,
        "mean_words": round(float(np.mean([num_words for _, num_words in alarms]))),
        "false_alarms": float(np.mean([winner != 0 for winner, _ in alarms])),
        "num_equal_pairs": num_equal_pairs,
        "num_pairs": num_pairs,
    }
    for gain in _GAINS:
        winners = [_judge(situation, gain, generator)[0] for _ in range(num_pairs)]
        row[f"power_at_{gain:.0%}_fewer_errors"] = float(np.mean([winner == 1 for winner in winners]))
    return row


def _judge(situation: Situation, gain: float, generator: np.random.Generator) -> tuple[int, int]:
    """Return 1 if the second model, which makes fewer errors, is named, -1 if the first, 0 if none; and the words."""
    first, second, words = simulate_pair(situation, gain, generator)
    numbers = np.repeat(np.arange(situation.num_speakers), situation.utterances_each)
    speakers = [str(number) for number in numbers] if situation.names_speakers else []
    change = compare_counts([first], [second], words, speakers=speakers, seed=int(generator.integers(2**31)))
    return -int(np.sign(change.difference)) * change.is_certain, int(words.sum())


def simulate_pair(
    situation: Situation, gain: float, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (U,) errors of two models and the words of each utterance; the second makes ``gain`` fewer errors."""
    num_utterances = situation.num_speakers * situation.utterances_each
    words = np.maximum(1, np.rint(situation.words * _factors(num_utterances, _WORDS_SPREAD, generator)))
    of_speakers = _factors(situation.num_speakers, _SHARED_SPREAD, generator)
    shared = _spread(of_speakers, situation) * _factors(num_utterances, _SHARED_SPREAD, generator)
    generalizes = situation.num_speakers >= FEWEST_SPEAKERS
    errors: list[NDArray[np.int64]] = []
    for scale in (1.0, 1.0 - gain):
        own = _factors(num_utterances, _UTTERANCE_SPREAD, generator)
        if generalizes:
            own = own * _spread(_factors(situation.num_speakers, _SPEAKER_SPREAD, generator), situation)
        expected = words * situation.error_rate * scale * shared * own
        loops = generator.random(num_utterances) < situation.loop_probability * scale
        errors.append(generator.poisson(expected) + loops * generator.poisson(_LOOP_WORDS, num_utterances))
    return errors[0], errors[1], words.astype(np.int64)


def _spread(of_speakers: NDArray[np.float64], situation: Situation) -> NDArray[np.float64]:
    return np.repeat(of_speakers, situation.utterances_each)


def _factors(count: int, spread: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw (count,) gamma distributed factors of mean 1 and the standard deviation ``spread``."""
    shape = spread**-2
    return generator.gamma(shape, 1 / shape, size=count)


if __name__ == "__main__":
    main(load_config(VerdictBenchmark))
