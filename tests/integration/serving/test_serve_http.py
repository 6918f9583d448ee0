"""The whole service: Ray Serve, the embedded model, speech it can hear, and OpenAI's own client."""

import io
import re
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import numpy as np
import openai
import psutil
import pytest
import soundfile
import srt
import webvtt
from ffmpeg_files import encode, encode_to_pipe
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranslationVerbose,
)
from real_service import transcriber_pids

from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.schema import Waveform
from sottovoce.text.score import score_texts
from sottovoce.words.timed_speech import TimedSpeech

pytestmark = pytest.mark.serve

MAX_WORD_ERROR_S = 0.1  # median of starts and ends; micro's record states 0.025 s for unseen voices
MAX_WER = 0.1  # micro's record states up to 0.03 for unseen voices; here are a few sentences, joined
DECODING_S = 0.15  # of CPU: in the midst of a batch; asking for health takes milliseconds


def speech(duration_s: float, *, sampling_rate: int = 16_000, num_channels: int = 1) -> np.ndarray:
    """Bursts of noise of 0.8 s with pauses of 0.2 s: (S, C) float32."""
    num_samples = int(duration_s * sampling_rate)
    noise = np.random.default_rng(0).normal(scale=0.1, size=(num_samples, num_channels)).astype(np.float32)
    noise[np.arange(num_samples) % sampling_rate >= 0.8 * sampling_rate] = 0.0
    return noise


def wav(samples: np.ndarray, *, sampling_rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sentences() -> list[TimedSpeech]:
    """Of 2 to 9 s, in voices micro was never trained on, each word's time by espeak-ng."""
    return speak_timed(12, voices=UNSEEN_VOICES, max_s=9.0, seed=3)


def said(sentence: TimedSpeech) -> str:
    return " ".join(piece.text for piece in sentence.pieces)


def joined(sentences: list[TimedSpeech]) -> Waveform:
    """Several with half a second between them: longer than one window."""
    pause = np.zeros(8_000, np.float32)
    return np.concatenate([part for sentence in sentences for part in (sentence.waveform, pause)])


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120.0) as client:
        yield client


def transcribe(client: openai.OpenAI, data: bytes, **fields):
    return client.audio.transcriptions.create(file=("speech.wav", data), model="sottovoce", language="en", **fields)


def test_every_format_holds_the_same_text(client, sentences):
    data = wav(joined(sentences[:4]))
    plain = transcribe(client, data)
    assert isinstance(plain, Transcription)
    spoken = " ".join(map(said, sentences[:4]))
    assert score_texts([spoken], [plain.text], normalizer="basic").wer.rate <= MAX_WER
    assert transcribe(client, data, response_format="text").strip() == plain.text
    verbose = transcribe(client, data, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (verbose.language, verbose.usage.seconds) == ("english", verbose.duration)
    heard = "".join(segment.text for segment in verbose.segments).strip()
    assert heard == verbose.text
    assert verbose.words is None
    for segment in verbose.segments:
        assert None not in segment.model_dump().values()
        assert 0.0 <= segment.start <= segment.end <= verbose.duration
        assert segment.tokens
        assert segment.avg_logprob < 0.0 < segment.compression_ratio
        assert 0.0 <= segment.no_speech_prob <= 1.0
    subtitles = list(srt.parse(transcribe(client, data, response_format="srt")))
    captions = webvtt.from_string(transcribe(client, data, response_format="vtt")).captions
    texts = [segment.text.strip() for segment in verbose.segments]
    assert [line.content for line in subtitles] == [caption.text for caption in captions] == texts
    assert subtitles[-1].end.total_seconds() == pytest.approx(verbose.segments[-1].end, abs=0.001)


def test_words_come_when_they_are_said(client, sentences):
    errors_s = []
    for sentence in sentences[:4]:
        answer = transcribe(
            client, wav(sentence.waveform), response_format="verbose_json", timestamp_granularities=["word"]
        )
        assert answer.segments is None
        assert " ".join(word.word for word in answer.words).split() == answer.text.split()
        assert all(word.start <= word.end for word in answer.words)
        times = {word.word.strip(".,").lower(): word for word in answer.words}
        for piece in sentence.pieces:
            heard = times.get(piece.text.strip(".,").lower())
            if heard is not None:
                errors_s += [abs(heard.start - piece.start_s), abs(heard.end - piece.end_s)]
    assert len(errors_s) > 40
    assert statistics.median(errors_s) <= MAX_WORD_ERROR_S


def test_log_probabilities_spell_the_text(client, sentences):
    answer = transcribe(client, wav(sentences[0].waveform), include=["logprobs"])
    spelled = b"".join(bytes(int(byte) for byte in token.bytes) for token in answer.logprobs).decode()
    assert spelled.strip() == answer.text
    assert all(token.logprob <= 0.0 for token in answer.logprobs)


def test_a_stream_gives_the_text_in_pieces(client, sentences):
    data = wav(joined(sentences[:4]))
    *pieces, done = transcribe(client, data, stream=True, chunking_strategy="auto", include=["logprobs"])
    assert len(pieces) >= 2
    assert all(isinstance(piece, TranscriptionTextDeltaEvent) for piece in pieces)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert (
        "".join(piece.delta for piece in pieces) == done.text == transcribe(client, data, chunking_strategy="auto").text
    )
    assert [token.bytes for piece in pieces for token in piece.logprobs] == [token.bytes for token in done.logprobs]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # as OpenAI calls its route
def test_a_translation_says_that_it_is_english(client, sentences):
    answer = client.audio.translations.create(
        file=("speech.wav", wav(sentences[0].waveform)), model="whisper-1", response_format="verbose_json"
    )
    assert isinstance(answer, TranslationVerbose)
    assert answer.language == "english"


def test_openais_client_lists_and_finds_models(client):
    assert {"sottovoce", "whisper-1"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/nope")
    assert caught.value.code == "model_not_found"


def test_probes_and_documentation_are_open(base_url):
    root = base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/readyz", timeout=60.0).json() == {"status": "ready"}
    assert httpx.get(f"{root}/healthz").json() == {"status": "ok"}
    assert "/v1/audio/transcriptions" in httpx.get(f"{root}/openapi.json").json()["paths"]
    page = httpx.get(f"{root}/docs").text
    assert "'/openapi.json'" in page
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert httpx.get(f"{root}{path}").status_code == 200


def test_openais_client_raises_its_own_error_classes(client, sentences):
    data = wav(sentences[0].waveform)
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=("a.wav", data), model="gpt-9")
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, data, response_format="diarized_json")
    assert caught.value.param == "response_format"
    assert caught.value.request_id
    assert "," not in caught.value.request_id, "the id must stand once"
    with pytest.raises(openai.UnprocessableEntityError):
        transcribe(client, wav(np.full((1600, 1), np.nan, np.float32), subtype="FLOAT"))
    with pytest.raises(openai.APIStatusError) as too_long:
        transcribe(client, wav(speech(61.0)))
    assert (too_long.value.status_code, too_long.value.code) == (413, "audio_too_long")
    with pytest.raises(openai.APIStatusError) as no_form:
        client.post("/audio/transcriptions", body={"model": "sottovoce"}, cast_to=object)
    assert (no_form.value.status_code, no_form.value.code) == (415, "unsupported_content_type")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"just text, renamed .wav", 400),
        (wav(speech(1.0))[:1000], 400),
        (wav(np.zeros((0, 1), np.float32)), 422),
        (wav(speech(1.0, num_channels=8)), 200),
        (wav(speech(1.0, sampling_rate=96_000), sampling_rate=96_000), 200),
        (wav(np.zeros((16_000, 1), np.float32)), 200),
        (wav(speech(0.01)), 200),
    ],
    ids=["empty", "text", "truncated", "no-samples", "8-channels", "96-kHz", "silence", "10-ms"],
)
def test_bad_audio_is_refused_and_odd_audio_is_heard(base_url, data, status):
    response = httpx.post(
        f"{base_url}/audio/transcriptions", files={"file": ("a.wav", data)}, data={"model": "sottovoce"}, timeout=60.0
    )
    assert response.status_code == status
    assert "error" in response.json() or "text" in response.json()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_a_413_declared_or_not(base_url, is_chunked):
    request = httpx.Request("POST", "http://x", files={"file": ("a.wav", b"\0" * 8 * 2**20)}, data={"model": "m"})
    body = request.read()
    content = iter([body[start : start + 65_536] for start in range(0, len(body), 65_536)]) if is_chunked else body
    headers = {"content-type": request.headers["content-type"]}
    response = httpx.post(f"{base_url}/audio/transcriptions", content=content, headers=headers, timeout=60.0)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_files_of_a_real_encoder_say_what_the_wav_says(client, sentences, tmp_path):
    spoken, text = sentences[0].waveform, transcribe(client, wav(sentences[0].waveform)).text
    channels = np.repeat(spoken[:, None], 8, axis=1)
    for data in (
        encode(spoken, tmp_path / "a.m4a", "-ar", "44100", "-b:a", "96k"),
        encode_to_pipe(spoken, "webm", "-c:a", "libopus", "-b:a", "64k"),
        encode_to_pipe(spoken, "flac", "-ar", "96000"),
        encode(channels, tmp_path / "a.opus", "-b:a", "512k"),
    ):
        answer = transcribe(client, data)  # as speech.wav, whatever it is
        assert score_texts([text], [answer.text], normalizer="basic").wer.rate <= MAX_WER
        assert answer.usage.seconds == pytest.approx(len(spoken) / 16_000, abs=0.1)


@pytest.mark.parametrize("algorithm", [None, "auto"])
def test_silence_and_noise_have_no_words(client, algorithm):
    fields = {"chunking_strategy": algorithm} if algorithm else {}
    hum = 0.05 * sum(np.sin(2 * np.pi * 50 * k * np.arange(96_000) / 16_000) / k for k in (1, 2, 3, 5))
    noise = np.random.default_rng(0).normal(scale=0.05, size=96_000)
    for sound in (np.zeros(96_000), noise, hum):
        assert transcribe(client, wav(sound.astype(np.float32)), **fields).text == ""


def test_requests_at_once_get_the_answers_they_get_alone(client, sentences):
    recordings = [wav(sentence.waveform) for sentence in sentences]
    alone = [transcribe(client, data).text for data in recordings]
    assert len(set(alone)) == len(alone), "answers this alike would hide a mix-up"
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda data: transcribe(client, data).text, recordings))
    assert together == alone


def test_real_speech_is_answered(client, shared_data):
    answer = transcribe(client, (shared_data / "jfk.flac").read_bytes(), response_format="verbose_json")
    assert answer.duration == pytest.approx(11.0, abs=0.01)


def test_requests_survive_the_death_of_a_transcriber(client, sentences):
    recordings = [wav(sentence.waveform) for sentence in sentences]
    alone = [transcribe(client, data).text for data in recordings]
    for _ in range(5):
        with ThreadPoolExecutor(12) as pool:
            pending = [pool.submit(lambda data=data: transcribe(client, data).text) for data in recordings * 3]
            victim = kill_while_it_decodes(transcriber_pids(), pending)
            answers = [answer.result() for answer in pending]
        assert answers == alone * 3
        if victim is not None:
            break
    else:
        pytest.fail("no replica was ever met while it decoded")
    assert victim not in transcriber_pids()


def kill_while_it_decodes(pids: list[int], pending: list[Future[str]]) -> int | None:
    """Kill a replica once it has computed for longer than anything but windows take; None where that came too late."""
    before = {process: sum(process.cpu_times()[:2]) for process in map(psutil.Process, pids)}
    while not all(answer.done() for answer in pending):
        for process, seconds in before.items():
            if sum(process.cpu_times()[:2]) - seconds > DECODING_S:
                process.kill()
                return None if all(answer.done() for answer in pending) else process.pid
        time.sleep(0.01)
    return None
