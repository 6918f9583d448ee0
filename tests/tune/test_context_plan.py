"""Contexts to compare: as configured, or 30 s and what the data needs; the runs differ in nothing else."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sottovoce.errors import ConfigError
from sottovoce.schema import Example, Utterance
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import (
    FULL_CONTEXT,
    ContextSearch,
    ContextSearchConfig,
    build_context_search,
    name_context,
    needed_context,
)


def speech(*durations_s: float) -> list[Utterance]:
    return [
        Utterance(id=f"u{place}", audio=f"{place}.wav", duration_s=one, text="word")
        for place, one in enumerate(durations_s)
    ]


def build(tiny_checkpoint: Path, output: Path, config: ContextSearchConfig, **training: object) -> ContextSearch:
    train: Any = SimpleNamespace(
        examples=[Example(utterances=(one,)) for one in speech(1.2, 4.1)],
        utterances=speech(1.2, 4.1),
        durations_s=np.array([1.2, 4.1]),
        kinds=speech(1.2),
        num_speakers=0,
    )
    return build_context_search(
        config,
        TrainingConfig.model_validate({"base": str(tiny_checkpoint), "device": "cpu", "num_workers": 2} | training),
        train=train,
        validation=speech(2.0),
        scored=speech(4.6) if config.split == "test" else [],
        output=output,
    )


@pytest.mark.parametrize(
    ("durations_s", "expected"),
    [([3.0, 1.2, 4.1], (1.5, 4.5)), ([2.0], (2.0, 2.0)), ([0.05, 29.9], (0.5, 30.0)), ([1.5000000001], (1.5, 1.5))],
)
def test_speech_needs_the_half_seconds_around_its_shortest_and_longest(
    durations_s: list[float], expected: tuple[float, float]
) -> None:
    assert needed_context(durations_s) == expected


def test_by_default_30_s_is_compared_with_what_the_speech_needs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    search = build(tiny_checkpoint, tmp_path, ContextSearchConfig())
    assert [arm.context_s for arm in search.arms] == [FULL_CONTEXT, (1.5, 5.0)]


def test_runs_differ_in_context_and_seed_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = ContextSearchConfig(contexts=((30.0, 30.0), (2.0, 10.0)), num_seeds=2)
    runs = [
        run
        for arm in build(tiny_checkpoint, tmp_path / "out", config, seed=5, checkpoints=str(tmp_path)).arms
        for run in arm.runs
    ]
    assert [(run.config.audio_context_s, run.config.seed) for run in runs] == [
        ((30.0, 30.0), 5), ((30.0, 30.0), 6), ((2.0, 10.0), 5), ((2.0, 10.0), 6),
    ]  # fmt: skip
    assert len({run.task.output for run in runs}) == 4
    assert len({(run.config.checkpoints, run.task.output.name) for run in runs}) == 4, "two runs share checkpoints"
    shared = [run.config.model_copy(update={"audio_context_s": None, "seed": 0, "checkpoints": None}) for run in runs]
    assert all(one == shared[0] for one in shared)


def test_a_context_in_the_training_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audio_context_s is searched"):
        build(tiny_checkpoint, tmp_path, ContextSearchConfig(), audio_context_s=(2.0, 10.0))


def test_an_empty_split_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no utterances in split train"):
        build(tiny_checkpoint, tmp_path, ContextSearchConfig(split="train"))


@pytest.mark.parametrize("context", [(0, 10), (-1, 10), (10, 2), (2, 30.5), (2, float("nan"))])
def test_a_context_that_no_model_has_is_refused_by_its_value(context: tuple[float, float]) -> None:
    named = f"must each be 0 < shortest <= longest <= 30, not {context[0]:g}, {context[1]:g}"
    with pytest.raises(ValidationError, match=named):
        ContextSearchConfig.model_validate({"contexts": [(30, 30), context]})


@pytest.mark.parametrize("contexts", [[(30, 30)], [(2, 10), (2, 10)]])
def test_contexts_that_cannot_be_compared_are_refused(contexts: list[tuple[float, float]]) -> None:
    with pytest.raises(ValidationError, match=r"search\.contexts"):
        ContextSearchConfig.model_validate({"contexts": contexts})


def test_a_context_is_named_by_its_range() -> None:
    assert name_context((30.0, 30.0)) == "30 s"
    assert name_context((1.5, 6.0)) == "1.5-6 s"
