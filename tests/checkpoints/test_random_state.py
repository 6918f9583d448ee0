import random

import numpy as np
import torch

from sottovoce.checkpoints.state import RandomState, read_random_state, set_random_state


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(1))


def test_every_generator_repeats_its_numbers_after_a_round_trip_through_json() -> None:
    random.gauss(0, 1)  # leaves the second of a pair behind, which is part of the state
    np.random.standard_normal()
    state = read_random_state()
    drawn = [draw() for _ in range(3)]
    set_random_state(RandomState.model_validate_json(state.model_dump_json()))
    assert [draw() for _ in range(3)] == drawn
