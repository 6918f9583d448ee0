from pathlib import Path

import pytest

from benchmarks.our_training import read_pace
from sottovoce.train.metrics.curves import CURVES_FILE, CurvePoint, append_point


def test_the_throughput_of_a_run_excludes_its_first_steps(tmp_path: Path) -> None:
    for step, steps_per_s, audio_s_per_s in ((3, 0.1, 1.0), (6, 3.0, 30.0), (9, 1.0, 8.0), (10, 2.0, 20.0)):
        values = {"train/steps_per_s": steps_per_s, "train/audio_s_per_s": audio_s_per_s}
        append_point(tmp_path / CURVES_FILE, CurvePoint(step, values))
        append_point(tmp_path / CURVES_FILE, CurvePoint(step, {"validation/wer": 0.5}))
    pace = read_pace(tmp_path, num_warmup_steps=3)
    assert pace.num_steps == 7
    assert pace.seconds == pytest.approx(1.0 + 3.0 + 0.5)
    assert pace.audio_s == pytest.approx(30.0 + 24.0 + 10.0)
