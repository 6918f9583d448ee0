"""Many models in one running service: promoted, rolled back, refused, and dropped for want of room."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from fake_transcriber import speech, wav
from ray_metrics import read_metrics, wait_for
from real_service import transcriber_pids

from jobs.promote_model import PromoteJob, main
from serve.models.promotion import Promotion
from sottovoce.errors import ExportGateError

pytestmark = pytest.mark.serve

PROMOTED = "promoted"
TIMEOUT_S = 120.0
NUM_ROUNDS = 2


def promote(models_folder: Path, **settings: object) -> None:
    main(PromoteJob(promotion=Promotion(name=PROMOTED, models_folder=models_folder, **settings)))


def ask(base_url: str, model: str = PROMOTED) -> httpx.Response:
    return httpx.post(
        f"{base_url}/audio/transcriptions",
        files={"file": ("speech.wav", wav(speech(2.5)))},
        # Above 0 there is one attempt, where random weights would make six. What is drawn follows from the logits and
        # the seed; so near to 0 that is the likeliest token, or one of two that are almost as likely.
        data={"model": model, "language": "en", "temperature": "0.001"},
        timeout=TIMEOUT_S,
    )


def heard(base_url: str, model: str = PROMOTED) -> str:
    response = ask(base_url, model)
    assert response.status_code == 200, response.text
    return str(response.json()["text"])


@dataclass
class Stream:
    """Clients that ask without a pause, and every answer they get."""

    base_url: str
    answers: list[httpx.Response] = field(default_factory=list)
    slowest_s: float = 0.0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopped.is_set():
            started = time.monotonic()
            self.answers.append(ask(self.base_url))
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)

    def wait_for(self, text: str) -> None:
        """Wait until five answers in a row are this text."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            latest = self.answers[-5:]
            if len(latest) == 5 and all(one.status_code == 200 and one.json()["text"] == text for one in latest):
                return
            time.sleep(0.1)
        pytest.fail(f"the service never came to answer {text!r}, but {self.answers[-1].text}")


def test_a_model_is_promoted_and_rolled_back_under_load_and_no_request_fails(base_url, models_folder):
    old, new = heard(base_url), heard(base_url, "micro-checkpoint")
    assert old != new
    stream = Stream(base_url)
    clients = [threading.Thread(target=stream.run) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        stream.wait_for(old)
        promote(models_folder, checkpoint=str(models_folder / "micro-checkpoint"))
        stream.wait_for(new)
        promote(models_folder, rollback=True)
        stream.wait_for(old)
    finally:
        stream.stopped.set()
        for client in clients:
            client.join()
    assert {answer.status_code for answer in stream.answers} == {200}
    assert {answer.json()["text"] for answer in stream.answers} == {old, new}


def test_a_checkpoint_an_adapter_and_an_exported_variant_answer_in_one_service(base_url, models_folder):
    listed = {model["id"] for model in httpx.get(f"{base_url}/models").json()["data"]}
    assert {PROMOTED, "sottovoce", "whisper-1", "micro-checkpoint", "adapter", "adapter@torch"} <= listed
    assert {"exported@int8", "exported@fp32", "refused@fp32"} <= listed
    texts = {model: heard(base_url, model) for model in ("micro-checkpoint", "adapter", "exported@fp32")}
    assert len(set(texts.values())) == 3
    assert heard(base_url, "exported@fp32") == heard(base_url), "the promoted checkpoint is the same model"
    assert heard(base_url, "whisper-1") == heard(base_url, "sottovoce")


def test_a_refused_variant_is_neither_promoted_nor_served(base_url, models_folder):
    before = heard(base_url)
    with pytest.raises(ExportGateError, match="int8 scores WER 0"):
        promote(models_folder, export=str(models_folder / "refused"), variant="int8")
    assert heard(base_url) == before
    response = ask(base_url, "refused@int8")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "WER 0.5000 against 0.1000" in error["message"]
    assert ask(base_url, "refused@torch").status_code == 404
    assert ask(base_url, "refused").status_code == 200, "its fp32 variant passed"


def test_models_make_room_for_each_other_within_the_budget(base_url):
    # int8 once gave two texts for one recording, as its engine alone never did (test_engines): it need only answer.
    models = (PROMOTED, "sottovoce", "micro-checkpoint", "adapter", "exported@fp32", "refused")

    def ask_all() -> dict[str, str]:
        assert ask(base_url, "exported@int8").status_code == 200
        return {model: heard(base_url, model) for model in models}

    first = ask_all()
    after_one_round = transcriber_bytes()
    for _ in range(NUM_ROUNDS - 1):
        assert ask_all() == first
    grown = [after - before for before, after in zip(after_one_round, transcriber_bytes(), strict=True)]
    assert max(grown) < 100 * 2**20, "what is dropped is really let go of"
    # There is no room for all seven: whoever was dropped in a round is loaded again in the next, and others make room.
    wait_for(num_dropped, lambda dropped: dropped >= NUM_ROUNDS - 1)


def num_dropped() -> float:
    """Count the models that the transcribers have let go of, as Serve counts them."""
    counts = [metric for metric in read_metrics() if metric.name == "ray_serve_multiplexed_models_unload_counter_total"]
    return sum(count.value for count in counts)


def transcriber_bytes() -> list[int]:
    """Resident memory of this test's own transcriber replicas."""
    pids = sorted(transcriber_pids())
    assert len(pids) == 2
    return [psutil.Process(pid).memory_info().rss for pid in pids]
