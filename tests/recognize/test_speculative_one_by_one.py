"""Eight windows, one at a time: with an assistant micro writes what it writes alone."""

import pytest
from assistants import SpokenWindows, halved, speak_windows

from sottovoce.model.checkpoint import Checkpoint, load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def micro(micro_assets) -> Checkpoint:
    return load_checkpoint(micro_assets)


@pytest.fixture(scope="module")
def eight(micro) -> SpokenWindows:
    return speak_windows(micro, 8)


@pytest.mark.parametrize("assistant", ["random tiny", "half of its layers"])
def test_eight_windows_have_the_same_tokens(micro, tiny_checkpoint, eight, assistant):
    helper = load_checkpoint(tiny_checkpoint) if assistant == "random tiny" else halved(micro)
    eight.assert_same_with(micro, helper, max_batch_size=1)
