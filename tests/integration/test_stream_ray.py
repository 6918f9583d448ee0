"""The stream on a real Ray: two workers with three microbatches read each example once, to the byte, as tasks die."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from sottovoce.audio.augmentation.augment import AugmentConfig, Augmenter
from sottovoce.data.batch_reader import BatchReader, build_table, to_batch
from sottovoce.data.dataset import DatasetConfig, SpeechStream, build_stream
from sottovoce.data.mixing import Speech
from sottovoce.schema import PcmBatch, Utterance

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

NUM_UTTERANCES, NUM_MICROBATCHES, NUM_EPOCHS, SEED = 120, 3, 2, 3
MICROBATCHES = ((0, 2), (1,))  # of the two workers
NUM_KILLS = 2


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> SpeechStream:
    """Noise of 2 to 5 s at 44 100 Hz, one file in 40 missing; packed, and changed in speed and level."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    utterances = []
    for i in range(NUM_UTTERANCES):
        path = folder / f"{i}.wav"
        duration_s = round(float(random.uniform(2.0, 5.0)), 4)
        if i % 40:
            soundfile.write(path, 0.1 * random.standard_normal(round(44_100 * duration_s)), 44_100)
        utterances.append(Utterance(id=f"u{i}", audio=str(path), duration_s=duration_s, text="x", speaker=f"s{i % 30}"))
    config = DatasetConfig(
        manifest=(Path("manifest.jsonl"),),
        batch_size=3,
        pack_s=8.0,
        augment=AugmentConfig(speed_probability=0.5, noise_probability=0.5, gain_probability=0.5),
        steps_per_task=2,
        cpus_per_task=0.5,
    )
    return build_stream(Speech(manifests=(tuple(utterances),), rejects=()), config)


@pytest.fixture(scope="module")
def undisturbed(stream: SpeechStream) -> list[list[bytes]]:
    """What each worker should read, made without Ray."""
    plan = stream.plan(num_microbatches=NUM_MICROBATCHES, seed=SEED)
    reader = BatchReader(
        build_table(stream.examples), plan, Augmenter(stream.augment), max_example_s=stream.longest_s
    )  # fmt: skip
    return [
        [
            digest(
                to_batch(
                    reader.read(step, microbatch=microbatch),
                    [stream.examples[place] for place in plan.batch(step, microbatch=microbatch)],
                    epoch=plan.epoch_of(step),
                )
            )
            for step in range(NUM_EPOCHS * plan.steps_per_epoch)
            for microbatch in microbatches
        ]
        for microbatches in MICROBATCHES
    ]


def digest(batch: PcmBatch) -> bytes:
    """All of a batch, as bytes."""
    ids = [[one.id for one in example.utterances] for example in batch.examples]
    samples = b"".join(pcm.tobytes() for recordings in batch.recordings for pcm in recordings)
    sizes = [[len(pcm) for pcm in recordings] for recordings in batch.recordings]
    return f"{batch.step} {batch.microbatch} {batch.epoch} {ids} {sizes} {batch.rejects}".encode() + samples


def read_all(stream: SpeechStream, worker: int, *, first_step: int = 0) -> list[PcmBatch]:
    last_step = NUM_EPOCHS * stream.steps_per_epoch(NUM_MICROBATCHES)
    batches = stream.batches(
        microbatches=MICROBATCHES[worker],
        num_microbatches=NUM_MICROBATCHES,
        seed=SEED,
        first_step=first_step,
        last_step=last_step,
    )
    return list(batches)


class Killer(threading.Thread):
    """Kill workers that decode, among this process's own descendants."""

    def __init__(self, num_kills: int) -> None:
        super().__init__(daemon=True)
        self.num_left = num_kills
        self.stopped = threading.Event()

    def run(self) -> None:
        while self.num_left and not self.stopped.is_set():
            for process in psutil.Process().children(recursive=True):
                if is_decoding(process):
                    with suppress(psutil.NoSuchProcess):  # it ended by itself just then: another one will do
                        process.kill()
                        self.num_left -= 1
                        break
            self.stopped.wait(0.3)


def is_decoding(process: psutil.Process) -> bool:
    try:
        return any("read_steps" in part for part in process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def ids_by_epoch(batches: list[list[PcmBatch]], epoch: int) -> list[str]:
    ours = [batch for worker in batches for batch in worker if batch.epoch == epoch]
    return sorted(one.id for batch in ours for example in batch.examples for one in example.utterances)


def test_killed_workers_lose_and_double_nothing(
    local_ray: str, stream: SpeechStream, undisturbed: list[list[bytes]]
) -> None:
    killer = Killer(NUM_KILLS)
    killer.start()
    rounds = 0
    with ThreadPoolExecutor(len(MICROBATCHES)) as pool:
        while killer.num_left or not rounds:
            batches = list(pool.map(lambda worker: read_all(stream, worker), range(len(MICROBATCHES))))
            assert [[digest(batch) for batch in worker] for worker in batches] == undisturbed
            rounds += 1
            assert rounds < 20, f"{killer.num_left} workers were never met while they decoded"
    killer.stopped.set()
    everyone = sorted(f"u{i}" for i in range(NUM_UTTERANCES))
    assert [ids_by_epoch(batches, epoch) for epoch in range(NUM_EPOCHS)] == [everyone] * NUM_EPOCHS
    rejected = [reject.id for worker in batches for batch in worker for reject in batch.rejects]
    assert sorted(rejected) == sorted([f"u{i}" for i in range(0, NUM_UTTERANCES, 40)] * NUM_EPOCHS)


def test_a_resumed_worker_reads_what_it_would_have_read(
    local_ray: str, stream: SpeechStream, undisturbed: list[list[bytes]]
) -> None:
    first_step = len(undisturbed[1]) - 5
    resumed = [[digest(batch) for batch in read_all(stream, worker, first_step=first_step)] for worker in (0, 1)]
    assert resumed == [undisturbed[0][2 * first_step :], undisturbed[1][first_step:]]


def test_a_stream_may_be_left_before_its_end(
    local_ray: str, stream: SpeechStream, undisturbed: list[list[bytes]]
) -> None:
    batches = stream.batches(
        microbatches=MICROBATCHES[0],
        num_microbatches=NUM_MICROBATCHES,
        seed=SEED,
        first_step=0,
        last_step=len(undisturbed[1]),
    )
    assert digest(next(batches)) == undisturbed[0][0]
    batches.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30.0
    while any(is_decoding(process) for process in psutil.Process().children(recursive=True)):
        assert time.monotonic() < deadline, "workers went on decoding for nobody"
        time.sleep(0.1)
