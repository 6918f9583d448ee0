import pytest

from sottovoce.demo.stages import Stages


def test_stages_are_timed_and_give_what_they_made():
    stages = Stages()
    assert stages.run("talking", lambda: 7) == 7
    assert list(stages.seconds) == ["imports", "talking"]
    assert 0.0 < stages.seconds["imports"] <= stages.total_s
    assert 0.0 <= stages.seconds["talking"] < 1.0


def test_a_stage_that_fails_fails_the_walk_and_has_no_seconds():
    stages = Stages()
    with pytest.raises(ZeroDivisionError):
        stages.run("dividing", lambda: 1 / 0)
    assert "dividing" not in stages.seconds
