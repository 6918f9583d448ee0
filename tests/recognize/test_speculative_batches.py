"""Sixteen windows, eight at a time: with an assistant micro writes what it writes alone."""

import pytest
from assistants import SpokenWindows, halved, shaken, speak_windows

from sottovoce.model.checkpoint import Checkpoint, load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def micro(micro_assets) -> Checkpoint:
    return load_checkpoint(micro_assets)


@pytest.fixture(scope="module")
def spoken(micro) -> SpokenWindows:
    return speak_windows(micro, 16)


@pytest.mark.parametrize("assistant", ["half of its layers", "shaken"])
def test_windows_of_several_batches_have_the_same_tokens(micro, spoken, assistant):
    helpers = {"half of its layers": halved(micro), "shaken": shaken(micro, 1.0)}
    spoken.assert_same_with(micro, helpers[assistant], max_batch_size=8)
