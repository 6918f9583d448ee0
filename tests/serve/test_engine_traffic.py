"""Windows of all kinds through a real engine, coming and going beside each other, against each alone."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve.engine import Engine
from serve.window import Window
from sottovoce.audio.waveform import from_pcm
from sottovoce.recognize.load import load_recognizer
from sottovoce.schema import DecodeOptions, WindowResult

NUM_CLIENTS = 20
SHORT = DecodeOptions(max_new_tokens=6, temperatures=(0.0,))
KINDS = [
    SHORT,
    replace(SHORT, max_new_tokens=14),
    replace(SHORT, max_new_tokens=60),  # long: it steps aside
    replace(SHORT, language=None),
    replace(SHORT, timestamps=True),
    replace(SHORT, beam_size=3, prompt="Dr. Meyer"),
    replace(SHORT, temperatures=(0.8,), best_of=2, seed=3),
    replace(SHORT, temperatures=(0.0, 0.4, 0.8), logprob_threshold=-0.5, max_new_tokens=20),
]


async def send_all(engine: Engine, windows: Sequence[Window]) -> list[WindowResult]:
    """Let clients send windows in turns, some of them after a pause."""
    left = iter(enumerate(windows))
    pauses = random.Random(1)
    results: dict[int, WindowResult] = {}

    async def send() -> None:
        for number, window in left:
            await asyncio.sleep(pauses.choice([0.0, 0.0, 0.01]))
            results[number] = await engine.decode("m", window)

    await asyncio.gather(*(send() for _ in range(NUM_CLIENTS)))
    return [results[number] for number in range(len(windows))]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "num_windows"), [("int8", 2_000), ("torch", 250)])
def test_each_of_many_windows_has_the_tokens_it_has_alone(
    variant: str, num_windows: int, tiny_checkpoint, tiny_export, speech_like
) -> None:
    recognizer = load_recognizer(tiny_checkpoint if variant == "torch" else tiny_export, variant=variant)
    draws = random.Random(0)
    pcm = [(32_767 * one).astype(np.int16) for one in speech_like[1:8:2]]  # four contexts
    drawn = [(draws.randrange(len(pcm)), draws.randrange(len(KINDS))) for _ in range(num_windows)]
    engine = Engine({"m": recognizer}.get, max_batch_size=8, batch_wait_timeout_s=0.005)
    windows = [Window(pcm[sound], KINDS[kind]) for sound, kind in drawn]
    together = asyncio.run(send_all(engine, windows))
    alone = {
        (sound, kind): recognizer.recognize([from_pcm(pcm[sound])], [KINDS[kind]])[0] for sound, kind in set(drawn)
    }
    differing = [
        pair for pair, result in zip(drawn, together, strict=True) if result.token_ids != alone[pair].token_ids
    ]
    assert not differing
    assert {0.0, 0.8} <= {result.temperature for result in together}
