import numpy as np
import pytest
from made_up_runs import EVERY, falling, healthy_record, make_curve, make_record, make_rows

from sottovoce.report.diagnosis.finding import series_of
from sottovoce.report.diagnosis.learning_rate import find_rate_too_high, find_rate_too_low, find_short_warmup
from sottovoce.train.config import TrainingConfig
from sottovoce.train.metrics.curves import CurvePoint

STEADY = [0.60, 0.40, 0.30, 0.25, 0.23, 0.225, 0.224, 0.223, 0.222, 0.221, 0.22]  # 200 steps
LOSSES = [1.8, 1.2, 0.9, 0.8, 0.75, 0.74, 0.73, 0.72, 0.71, 0.70]


def steady_record(**fields: object):
    return make_record(make_rows(STEADY, training_losses=LOSSES), **fields)


def test_curves_of_a_healthy_run_show_neither_too_high_nor_too_low_a_rate() -> None:
    curves = (*make_curve("train/loss", falling(40)), *make_curve("train/gradient_norm", falling(40, start=8.0)))
    assert find_rate_too_high(steady_record(), curves) is None
    assert find_short_warmup(steady_record(), curves) is None
    assert find_rate_too_low(steady_record()) is None


def test_without_curves_only_the_evaluations_are_judged() -> None:
    assert find_rate_too_high(healthy_record(), ()) is None
    assert find_short_warmup(healthy_record(), ()) is None


def test_wer_far_above_the_base_models_at_the_first_evaluation_is_serious() -> None:
    record = make_record(make_rows([0.2, 0.9, 0.6, 0.3], losses=[1.0, 3.0, 2.0, 1.5]))
    finding = find_rate_too_high(record, ())
    assert finding is not None
    assert finding.severity == "serious"
    assert "WER was 90.0 % at step 20, against the base model's 20.0 %" in finding.seen
    assert "At a learning rate of 0.0001" in finding.seen
    assert [(change.name, change.value) for change in finding.changes] == [("training.learning_rate", 2e-05)]


def test_the_rate_known_for_the_models_size_is_proposed_where_it_is_lower_still() -> None:
    rows = make_rows([0.2, 0.9, 0.6, 0.3], losses=[1.0, 3.0, 2.0, 1.5])
    small = make_record(rows).model_copy(update={"num_parameters": 241_734_912})
    finding = find_rate_too_high(small, ())
    assert finding is not None
    assert "Known to work for a model of this size: about 1.25e-05" in finding.seen
    assert finding.changes[0].value == 1.25e-05
    micro = find_rate_too_high(small.model_copy(update={"num_parameters": 12_863_424}), ())
    assert micro is not None
    assert micro.changes[0].value == 2e-05  # a fifth, as the known one is higher


def test_wer_that_starts_higher_while_the_loss_falls_is_a_new_style_not_a_broken_model() -> None:
    record = make_record(make_rows([0.2, 0.3, 0.15], losses=[2.0, 1.0, 0.8]))
    assert find_rate_too_high(record, ()) is None


def test_a_training_loss_that_rises_for_good_is_serious() -> None:
    curve = make_curve("train/loss", [*falling(20), *np.linspace(0.6, 3.0, 20)])
    finding = find_rate_too_high(steady_record(), curve)
    assert finding is not None
    assert finding.severity == "serious"
    assert "the training loss rose from 0." in finding.seen


def test_without_curves_the_rows_show_that_the_training_loss_rises() -> None:
    record = make_record(make_rows([0.6, 0.5, 0.4, 0.45], training_losses=[1.0, 0.5, 1.2]))
    finding = find_rate_too_high(record, ())
    assert finding is not None
    assert "rose from 0.500 around step 40 to 1.200 around step 60" in finding.seen


def test_spikes_after_the_warm_up_are_counted_and_the_first_is_named() -> None:
    values = falling(40)
    for place in (20, 28, 34):
        values[place] *= 4
    finding = find_rate_too_high(steady_record(), make_curve("train/loss", values))
    assert finding is not None
    assert finding.severity == "warning"
    assert "jumped 3 times" in finding.seen
    assert "first at step 105" in finding.seen
    assert finding.changes[0].value == 5e-05


def test_a_single_spike_and_noise_are_no_finding() -> None:
    values = falling(40)
    values[20] *= 4
    assert find_rate_too_high(steady_record(), make_curve("train/loss", values)) is None
    noise = np.random.default_rng(0).normal(1.0, 0.1, 40)
    assert find_rate_too_high(steady_record(), make_curve("train/loss", falling(40) * noise)) is None


def test_losses_near_zero_may_double_by_chance() -> None:
    values = [0.01, 0.02, 0.005, 0.03] * 10
    record = make_record(make_rows(STEADY, training_losses=[0.02] * 10))
    assert find_rate_too_high(record, make_curve("train/loss", values)) is None


def test_a_gradient_that_grows_is_a_finding_and_clipping_supports_it() -> None:
    curve = make_curve("train/gradient_norm", np.geomspace(1.5, 30.0, 40))
    finding = find_rate_too_high(steady_record(), curve)
    assert finding is not None
    assert "norm grew from" in finding.seen
    assert "clipped to 1 at 100 % of the logged steps" in finding.seen


def test_clipping_alone_is_none_as_adam_does_not_see_a_gradients_scale() -> None:
    assert find_rate_too_high(steady_record(), make_curve("train/gradient_norm", [5.0] * 40)) is None


def test_a_validation_loss_that_is_not_finite_is_serious() -> None:
    record = make_record(make_rows([0.5, 0.4, 1.0], losses=[1.0, 0.9, float("nan")]))
    finding = find_rate_too_high(record, ())
    assert finding is not None
    assert "not finite from step 40 on" in finding.seen


def test_a_loss_that_hardly_falls_while_wer_stays_means_too_low_a_rate() -> None:
    finding = find_rate_too_low(make_record(make_rows([0.30, 0.295, 0.29], training_losses=[1.0, 0.95])))
    assert finding is not None
    assert "from 1.000 to 0.950" in finding.seen
    assert "from 30.0 % to 29.0 %" in finding.seen
    assert [(change.name, change.value) for change in finding.changes] == [("training.learning_rate", 3e-4)]


@pytest.mark.parametrize(
    ("wers", "training_losses", "is_finished"),
    [
        pytest.param([0.30, 0.2, 0.1], [1.0, 0.95], True, id="WER fell"),
        pytest.param([0.30, 0.295, 0.29], [1.0, 0.5], True, id="the loss fell"),
        pytest.param([0.30, 0.295, 0.29], [1.0, 1.2], True, id="the loss rose"),
        pytest.param([0.30, 0.295], [1.0], True, id="one evaluation"),
        pytest.param([0.30, 0.295, 0.29], [1.0, 0.95], False, id="still running"),
    ],
)
def test_otherwise_the_rate_is_not_called_too_low(
    wers: list[float], training_losses: list[float], is_finished: bool
) -> None:
    record = make_record(make_rows(wers, training_losses=training_losses), is_finished=is_finished)
    assert find_rate_too_low(record) is None


def test_a_bump_that_is_made_good_means_too_short_a_warm_up() -> None:
    curve = make_curve("train/loss", [2.0, 2.2, 3.5, 3.0, *falling(36, start=2.0)])
    finding = find_short_warmup(steady_record(), curve)
    assert finding is not None
    assert "from 2.000 to 3.500 at step 15" in finding.seen
    assert [(change.name, change.value, change.before) for change in finding.changes] == [
        ("training.warmup_steps", 12, 5)
    ]
    assert find_rate_too_high(steady_record(), curve) is None


def test_a_bump_that_is_not_made_good_is_the_rates_fault_not_the_warm_ups() -> None:
    assert find_short_warmup(steady_record(), make_curve("train/loss", [1.0, 1.2, *[3.5] * 38])) is None


def test_where_the_warm_up_is_long_already_the_rate_is_lowered() -> None:
    training = TrainingConfig(evaluate_every_steps=EVERY, warmup_steps=80)
    curve = make_curve("train/loss", [2.0, 2.2, 3.5, 3.0, *falling(56, start=2.0)])
    finding = find_short_warmup(steady_record(training=training), curve)
    assert finding is not None
    assert finding.changes[0].name == "training.learning_rate"


def test_a_series_is_in_order_finite_and_the_last_value_of_a_step() -> None:
    values = [(10, 2.0), (5, 1.0), (20, float("nan")), (10, 3.0)]
    points = [CurvePoint(step, {"train/loss": value}) for step, value in values]
    series = series_of([*points, CurvePoint(15, {"validation/wer": 0.5})], "train/loss")
    assert series.steps.tolist() == [5, 10]
    assert series.values.tolist() == [1.0, 3.0]
    assert series.after(5).steps.tolist() == [10]
    assert series.until(5).values.tolist() == [1.0]
