"""What the tests on Ray and on a real server share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_training import training_in_process
from tone_training import NUM_TRAIN, NUM_VALIDATION

from benchmarks.audited_training import write_tones


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of tones of 0.5 to 2 s; what they are called is their text."""
    return write_tones(tmp_path_factory.mktemp("corpus"), num_train=NUM_TRAIN, num_validation=NUM_VALIDATION)


@pytest.fixture
def in_process() -> Iterator[None]:
    """Trainings of the test run in its own process: see ``in_process_training``."""
    with training_in_process():
        yield
