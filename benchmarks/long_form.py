"""Does a long recording come out as its utterances alone would?  ``python -m benchmarks.long_form --output FILE``.

Synthetic sentences in voices no model was trained on, joined with pauses, each of whose words has a known time. Both
algorithms transcribe the whole twice: for its text alone, and with segments and word times. ``wer_alone`` is of the
same sentences as one window each, for their text alone, and ``points_lost`` what joining them costs. ``segment_*`` are
distances of segments' starts and ends from where the words they begin and end with sound, over the whole and over the
last five minutes; segments whose outer words were misheard have no such place and are left out, with their share.

``gateway_mib`` is what a process that holds no model needs above its idle memory to decode the same recording from
compressed bytes, look for speech, cut windows and put segments together, through the gateway's own code.
``rtfx`` is seconds of audio per second of recognition, in this process, with voice activity and without decoding.
"""

import asyncio
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Literal

import jiwer
import numpy as np
import soundfile

from benchmarks.common import Row, describe_machine, print_table, write_result
from sottovoce.config import Config, load_config
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import TRANSCRIBE_OPTIONS, LongFormOptions
from sottovoce.recognize.longform.segment import Segment, Transcript
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform
from sottovoce.text.normalize import build_normalizer
from sottovoce.words.timed_speech import TimedPiece, TimedSpeech

QUESTION = "Does a long recording come out as its utterances alone would, at the right times and in bounded memory?"
_SEED = 2_027  # no other speech of the project is made with it
_UTTERANCE_S = 5.0  # the longest: mostly one sentence
_TAIL_S = 300.0
_ENCODED_AS = ("MP3", "MPEG_LAYER_III")  # an hour is less than a request's limit of 25 MiB

Mode = Literal["text", "words"]


class LongFormBenchmark(Config):
    """Transcribe long recordings by both algorithms."""

    output: Path
    """File that receives the result as JSON."""
    model: str = "micro"
    """Checkpoint or export folder, Hub id or micro."""
    variant: str = "torch"
    """torch for a checkpoint, the name of a format such as int8 for an export."""
    minutes: tuple[float, ...] = (10.0, 60.0)
    """Lengths of the recordings; each is the beginning of the next."""
    num_threads: int = 1


@dataclass(frozen=True)
class _Joined:
    """A long recording and what is said in it when."""

    utterances: tuple[TimedSpeech, ...]
    waveform: Waveform
    pieces: tuple[TimedPiece, ...]

    @property
    def duration_s(self) -> float:
        return len(self.waveform) / SAMPLING_RATE


def main(settings: LongFormBenchmark) -> None:
    """Run the benchmark."""
    recognizer = load_recognizer(settings.model, variant=settings.variant, num_threads=settings.num_threads)
    rows: list[Row] = []
    for minutes in settings.minutes:
        speech = _speak(60.0 * minutes)
        memory = _gateway_memory(speech.waveform, max_window_s=recognizer.context.max_s)
        for mode in ("text", "words"):
            rows += _measure(recognizer, speech, mode, memory)
            print_table("so far", rows)
    write_result(settings.output, QUESTION, rows, machine=describe_machine())


def _speak(duration_s: float) -> _Joined:
    """Speak utterances until they are long enough together."""
    spoken = speak_timed(int(duration_s / 1.5), voices=UNSEEN_VOICES, max_s=_UTTERANCE_S, seed=_SEED)
    utterances: list[TimedSpeech] = []
    pieces: list[TimedPiece] = []
    num_samples = 0
    for one in spoken:
        if num_samples >= duration_s * SAMPLING_RATE:
            break
        offset_s = num_samples / SAMPLING_RATE
        pieces += [TimedPiece(piece.text, offset_s + piece.start_s, offset_s + piece.end_s) for piece in one.pieces]
        num_samples += len(one.waveform)
        utterances.append(one)
    return _Joined(tuple(utterances), np.concatenate([one.waveform for one in utterances]), tuple(pieces))


def _measure(recognizer: Recognizer, speech: _Joined, mode: Mode, memory: dict[str, float]) -> Iterator[Row]:
    """Transcribe by both algorithms, and each utterance alone."""
    asked = {"timestamps": mode == "words", "word_timestamps": mode == "words"}
    reference = " ".join(piece.text for piece in speech.pieces)
    alone = _score(reference, _hear_alone(recognizer, speech))
    for algorithm in ("chunked", "sequential"):
        started = perf_counter()
        transcript = recognizer.transcribe(
            speech.waveform,
            language="en",
            timestamps=asked["timestamps"],
            word_timestamps=asked["word_timestamps"],
            long_form=LongFormOptions(algorithm=algorithm),
            show_progress=True,
        )
        seconds = perf_counter() - started
        wer = _score(reference, transcript.text)
        yield {
            "minutes": round(speech.duration_s / 60.0, 1),
            "algorithm": algorithm,
            "asked": mode,
            "engine": recognizer.name,
            "num_segments": len(transcript.segments),
            "wer": wer,
            "wer_alone": alone,
            "points_lost": 100.0 * (wer - alone),
            "rtfx": speech.duration_s / seconds,
            "gateway_mib": memory[algorithm],
            **(_segment_errors(transcript, speech) if mode == "words" else {}),
        }


def _hear_alone(recognizer: Recognizer, speech: _Joined) -> str:
    options = DecodeOptions(language="en", temperatures=TRANSCRIBE_OPTIONS.temperatures)
    waveforms = [one.waveform for one in speech.utterances]
    return " ".join(result.text for result in recognizer.recognize(waveforms, [options] * len(waveforms)))


def _score(reference: str, hypothesis: str) -> float:
    rules = build_normalizer("basic")
    return float(jiwer.wer(rules(reference), rules(hypothesis)))


def _segment_errors(transcript: Transcript, speech: _Joined) -> dict[str, float]:
    """Measure segments' starts and ends against the words they begin and end with."""
    matches = _match_words([piece.text for piece in speech.pieces], [one.text for one in transcript.segments])
    errors, tail = [], []
    for segment, (first, last) in zip(transcript.segments, matches, strict=True):
        found = _edge_errors(segment, speech.pieces, first, last)
        errors += found
        tail += found if segment.start_s >= speech.duration_s - _TAIL_S else []
    return {
        "segment_median_s": float(np.median(errors)),
        "segment_p90_s": float(np.percentile(errors, 90)),
        "segment_tail_median_s": float(np.median(tail)),
        "segment_tail_p90_s": float(np.percentile(tail, 90)),
        "segment_within_0.3_s": float(np.mean(np.array(tail) <= 0.3)),
        "segment_edges_known": len(errors) / (2 * len(transcript.segments)),
    }


def _edge_errors(segment: Segment, pieces: Sequence[TimedPiece], first: int | None, last: int | None) -> list[float]:
    errors = [] if first is None else [abs(segment.start_s - pieces[first].start_s)]
    return errors if last is None else [*errors, abs(segment.end_s - pieces[last].end_s)]


def _match_words(pieces: Sequence[str], texts: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Find for each segment the piece that its first word begins and the one that its last word ends, if they do."""
    rules = build_normalizer("basic")
    said = [(word, place) for place, piece in enumerate(pieces) for word in rules(piece).split()]
    heard = [(word, place) for place, text in enumerate(texts) for word in rules(text).split()]
    aligned: dict[int, int] = {}
    output = jiwer.process_words(" ".join(word for word, _ in said), " ".join(word for word, _ in heard))
    for chunk in output.alignments[0]:
        if chunk.type == "equal":
            aligned |= zip(
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                strict=True,
            )
    edges: list[tuple[int | None, int | None]] = []
    for place in range(len(texts)):
        words = [index for index, (_, segment) in enumerate(heard) if segment == place]
        first, last = (aligned.get(words[0]), aligned.get(words[-1])) if words else (None, None)
        begins = first is not None and (first == 0 or said[first - 1][1] != said[first][1])
        ends = last is not None and (last + 1 == len(said) or said[last + 1][1] != said[last][1])
        edges.append(
            (
                said[first][1] if begins and first is not None else None,
                said[last][1] if ends and last is not None else None,
            )
        )
    return edges


def _gateway_memory(waveform: Waveform, *, max_window_s: float) -> dict[str, float]:
    """Measure each algorithm in a fresh process that never loads a model."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLING_RATE, format=_ENCODED_AS[0], subtype=_ENCODED_AS[1])
    data = buffer.getvalue()
    algorithms: tuple[Literal["chunked", "sequential"], ...] = ("chunked", "sequential")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as executor:
        return {
            algorithm: executor.submit(_hear_in_gateway, data, algorithm, max_window_s).result()
            for algorithm in algorithms
        }


def _hear_in_gateway(data: bytes, algorithm: Literal["chunked", "sequential"], max_window_s: float) -> float:
    """Transcribe through the gateway's code with windows that say nothing; gives MiB above idle, at the most."""
    import psutil  # here: in a process of its own, whose idle memory counts what it imports

    from serve.decoding.lanes import Decoders
    from serve.settings import Limits
    from serve.transcript import Transcription
    from sottovoce.recognize.longform.algorithms import build_reader
    from sottovoce.schema import Pcm, WindowResult, WindowSegment

    async def send(pcm: Pcm, options: DecodeOptions) -> WindowResult:
        segment = WindowSegment(0.0, len(pcm) / SAMPLING_RATE, " words", (1,))
        return WindowResult(
            text="words", token_ids=(1,), language="en", avg_logprob=0.0, no_speech_prob=0.0, segments=(segment,)
        )

    async def hear() -> None:
        limits = Limits()
        decoders = Decoders(limits)
        async with decoders.decoded(io.BytesIO(data)) as decoded:
            long_form = LongFormOptions(algorithm=algorithm)
            reader = build_reader(
                decoded.recording, DecodeOptions(), long_form, min_window_s=2.0, max_window_s=max_window_s
            )
            transcription = Transcription(
                decoded.recording,
                reader,
                send=send,
                max_in_flight=limits.max_windows_in_flight,
                threads=decoded.threads,
            )
            await transcription.transcript()
        decoders.close()

    idle = psutil.Process().memory_info().rss - len(data)
    asyncio.run(hear())
    above_idle: float = (_peak_bytes() - idle) / 2**20
    return above_idle


def _peak_bytes() -> int:
    """Read the most memory this process ever had, as Linux counts it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(load_config(LongFormBenchmark))
