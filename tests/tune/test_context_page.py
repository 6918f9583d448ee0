"""Table and page of a made-up comparison: they show every context and engine, and fetch nothing."""

from pathlib import Path

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.train.config import TrainingConfig
from sottovoce.tune.context_plan import ContextSearchConfig
from sottovoce.tune.context_record import (
    Comparison,
    ContextRecord,
    ContextResult,
    EngineScore,
    describe_verdict,
)
from sottovoce.tune.context_report import context_table, publish_contexts


def result(context_s: tuple[float, float], *, wer: float, training_s: float, rtfx: float) -> ContextResult:
    rows = tuple(
        EvaluationRow(
            step=step, epoch=1.0, training_loss=None, validation_loss=1.0, wer=wer + 0.5 / (1 + step), wer_low=0.0,
            wer_high=1.0, cer=0.1, seconds=1.0,
        )
        for step in (0, 10)
    )  # fmt: skip
    return ContextResult(
        context_s=context_s, seeds=(0,), curves=(rows,), num_steps=10, training_s=training_s, data_wait_s=0.1,
        trained_audio_s=100.0,
        scores=tuple(
            EngineScore(engine=engine, wer=wer, wer_low=wer - 0.01, wer_high=wer + 0.01, cer=wer / 2, rtfx=rtfx)
            for engine in ("torch", "int8")
        ),
    )  # fmt: skip


RECORD = ContextRecord(
    search=ContextSearchConfig(), training=TrainingConfig(), base_context_s=(2.0, 10.0), num_utterances=124,
    num_words=726, scored_hours=0.1, normalizer="basic",
    results=(
        result((30.0, 30.0), wer=0.1, training_s=10.0, rtfx=10.0),
        result((1.5, 6.0), wer=0.11, training_s=2.0, rtfx=50.0),
    ),
    comparisons=tuple(
        Comparison(
            context_s=(1.5, 6.0), reference_s=(30.0, 30.0), engine=engine, wer_rise=0.01, low=-0.01, high=0.03,
            training_speedup=5.0, recognition_speedup=5.0, bound=0.005,
        )
        for engine in ("torch", "int8")
    ),
    verdict="Trimming costs <a little>.",
)  # fmt: skip


def test_the_table_lists_every_context_and_engine_and_ends_with_the_verdict() -> None:
    lines = context_table(RECORD).splitlines()
    assert lines[0] == "scored on 124 utterances of split test, 726 words (basic)"
    assert [line.split()[:2] for line in lines[2:4]] == [["30", "s"], ["30", "s"]]
    assert lines[4].split() == ["1.5-6", "s", "50.0", "5.0", "%", "torch", "11.00", "10.00", "-", "12.00", "50.0"]
    assert lines[-1] == RECORD.verdict


def test_trainings_whose_wer_still_falls_are_named() -> None:
    falling = describe_verdict(RECORD.results, RECORD.comparisons[:1], bound=0.005)
    assert falling.endswith(
        "With 30 s and 1.5-6 s validation WER was still falling by more than the bound when training ended: train "
        "longer before you decide."
    )
    assert "still falling" not in describe_verdict(RECORD.results, RECORD.comparisons[:1], bound=0.6)


def test_the_page_shows_every_comparison_and_fetches_nothing(tmp_path: Path) -> None:
    publish_contexts(RECORD, tmp_path)
    page = (tmp_path / "contexts.html").read_text(encoding="utf-8")
    assert page.count("<svg ") == 3
    assert "Trimming costs &lt;a little&gt;." in page
    assert page.count("no, but not sure") == 2
    assert "trained on contexts of 2-10 s" in page
    assert not any(word in page for word in ("<script", "src=", "<link", "@import"))
