"""How many words are invented where nobody speaks, and are any lost?  ``python -m benchmarks.silence --output FILE``.

Minutes of silence, noise, hum, clicks and tones (``sounds.py``) are transcribed as recordings of several lengths: by
the engine alone, window after window; by the engine with Whisper's own rules (temperature fallback, no-speech
probability); and by both long-form algorithms, which look for speech first. Speech goes through the same four in the
same run: a rule that silences it shows as words deleted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.common import Row, describe_machine, print_table, write_result
from benchmarks.sounds import make_sounds
from sottovoce.audio.decode import read_audio
from sottovoce.config import Config, load_config
from sottovoce.data.corpora.read import read_corpus
from sottovoce.demo.speech import UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.recognize.load import load_recognizer
from sottovoce.recognize.longform.options import TRANSCRIBE_OPTIONS, LongFormOptions
from sottovoce.recognize.longform.transcribe import transcribe
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform
from sottovoce.text.score import score_texts

QUESTION = "How many words a minute are invented where nobody speaks, and how many are lost where somebody does?"
_SEED = 7_001  # no other sound of the project is made with it
_LANGUAGE = "en"
_ALONE = DecodeOptions(language=_LANGUAGE, no_speech_threshold=None)
_RULES = replace(TRANSCRIBE_OPTIONS, language=_LANGUAGE, timestamps=False)

System: TypeAlias = Callable[[Waveform], str]


class SilenceBenchmark(Config):
    """Count invented words on sounds without speech, and lost ones on speech."""

    output: Path
    """File that receives the result as JSON."""
    models: tuple[str, ...] = ("micro",)
    """Checkpoint folders, Hub ids or micro."""
    minutes: float = 2.0
    """Of each kind of sound."""
    recordings_s: tuple[float, ...] = (6.0, 60.0)
    """Lengths of the recordings: one that fits a window, and one that does not."""
    num_sentences: int = 60
    """Recordings of synthetic speech."""
    digits: Path | None = None
    """An audio folder with one spoken word in each recording and a test split; left out when None."""
    num_digits: int = 100
    """Of its recordings."""


@dataclass(frozen=True)
class Spoken:
    """A recording and what is said in it."""

    waveform: Waveform
    text: str


def main(settings: SilenceBenchmark) -> None:
    """Run the benchmark."""
    machine = describe_machine()
    sounds = make_sounds(60.0 * settings.minutes, seed=_SEED)
    speech = _speech(settings)
    rows: list[Row] = []
    for model in settings.models:
        systems = _systems(load_recognizer(model))
        for length_s in settings.recordings_s:
            found = [
                {"model": model, "recordings_s": length_s, "sound": name, "words_per_minute": _invented(systems, sound)}
                for name, whole in sounds.items()
                for sound in [_cut(whole, length_s)]
            ]
            rows += [*found, _total(found)]
        rows += [{"model": model, "speech": name} | _scored(systems, spoken) for name, spoken in speech.items()]
    write_result(settings.output, QUESTION, rows, machine=machine)
    print_table("invented words a minute", [row for row in rows if "sound" in row])
    print_table("word error rate, and words deleted", [row for row in rows if "speech" in row])


def _systems(recognizer: Recognizer) -> Mapping[str, System]:
    """Return what turns a recording into text, from the engine alone to the service's own way."""

    def windows(options: DecodeOptions) -> System:
        def read(waveform: Waveform) -> str:
            size = round(recognizer.context.max_s * SAMPLING_RATE)
            parts = [waveform[start : start + size] for start in range(0, len(waveform), size)]
            return " ".join(result.text for result in recognizer.recognize(parts, [options] * len(parts)))

        return read

    def long_form(options: LongFormOptions) -> System:
        return lambda waveform: (
            transcribe(recognizer, waveform, long_form=options, language=_LANGUAGE, timestamps=False).text
        )

    return {
        "engine alone": windows(_ALONE),
        "Whisper's rules": windows(_RULES),
        "sequential": long_form(LongFormOptions(algorithm="sequential")),
        "chunked": long_form(LongFormOptions(algorithm="chunked")),
    }


def _invented(systems: Mapping[str, System], recordings: Sequence[Waveform]) -> dict[str, float]:
    minutes = sum(map(len, recordings)) / SAMPLING_RATE / 60.0
    return {
        name: sum(len(read(recording).split()) for recording in recordings) / minutes for name, read in systems.items()
    }


def _total(rows: Sequence[Row]) -> Row:
    """Return the mean over all kinds of sound."""
    measured = [row["words_per_minute"] for row in rows]
    rates = [rate for rate in measured if isinstance(rate, dict)]
    return {
        **rows[0],
        "sound": "all",
        "words_per_minute": {name: float(np.mean([rate[name] for rate in rates])) for name in rates[0]},
    }


def _scored(systems: Mapping[str, System], spoken: Sequence[Spoken]) -> dict[str, object]:
    """Score each system, and count the recordings it gives no word of."""
    references = [one.text for one in spoken]
    columns: dict[str, object] = {"recordings": len(spoken), "words": sum(len(text.split()) for text in references)}
    for name, read in systems.items():
        hypotheses = [read(one.waveform) for one in spoken]
        wer = score_texts(references, hypotheses, normalizer="basic").wer
        empty = sum(not text.strip() for text in hypotheses)
        columns[name] = {"wer": wer.rate, "deleted": wer.deletions, "empty": empty}
    return columns


def _speech(settings: SilenceBenchmark) -> dict[str, list[Spoken]]:
    """Return single sentences, the same in a row with pauses and in noise, very soft, and recorded words."""
    random = np.random.default_rng(_SEED)
    timed = speak_timed(settings.num_sentences, voices=UNSEEN_VOICES, max_s=9.5, seed=_SEED)
    alone = [Spoken(one.waveform, " ".join(piece.text for piece in one.pieces)) for one in timed]
    speech = {
        "sentences": alone,
        "sentences, six in a row": [_in_a_row(alone[at : at + 6], random) for at in range(0, len(alone), 6)],
        "sentences in noise, 10 dB": [Spoken(_in_noise(one.waveform, random), one.text) for one in alone],
        "sentences, 30 dB softer": [Spoken(one.waveform * np.float32(0.0316), one.text) for one in alone],
    }
    if settings.digits is not None:
        rows = [row for row in read_corpus(settings.digits) if row.split == "test" and row.text]
        speech["recorded words"] = [
            Spoken(read_audio(row.audio), row.text or "") for row in rows[: settings.num_digits]
        ]
    return speech


def _in_a_row(sentences: Sequence[Spoken], random: np.random.Generator) -> Spoken:
    """Join recordings with pauses of 0.5 to 4 s."""
    parts: list[Waveform] = []
    for one in sentences:
        parts += [np.zeros(round(random.uniform(0.5, 4.0) * SAMPLING_RATE), np.float32), one.waveform]
    return Spoken(np.concatenate(parts), " ".join(one.text for one in sentences))


def _in_noise(waveform: Waveform, random: np.random.Generator) -> Waveform:
    noise = np.sqrt(np.mean(np.square(waveform)) / 10.0) * random.standard_normal(len(waveform))
    return np.asarray((waveform + noise).clip(-1.0, 1.0), np.float32)


def _cut(sound: Waveform, length_s: float) -> list[Waveform]:
    size = round(length_s * SAMPLING_RATE)
    return [sound[start : start + size] for start in range(0, len(sound) - size + 1, size)]


if __name__ == "__main__":
    main(load_config(SilenceBenchmark))
