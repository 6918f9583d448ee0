"""Speech-like recordings of chosen lengths, and random-weight models to read them: enough to measure speed on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soundfile
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast

from sottovoce.demo.speech import TRAINING_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sottovoce.model.context import TrimmedWhisper, set_audio_context
from sottovoce.model.source import resolve_folder
from sottovoce.schema import SAMPLING_RATE, Utterance, Waveform

Shape: TypeAlias = Literal["narrow", "micro", "tiny", "base", "small", "large-v3"]
Workload: TypeAlias = Literal["padded", "short"]

_WIDTH_LAYERS_DECODER_LAYERS_HEADS_MELS: dict[Shape, tuple[int, int, int, int, int]] = {
    "narrow": (32, 1, 1, 2, 80),  # of ours: for runs that are about something else than speed
    "micro": (192, 4, 2, 3, 80),
    "tiny": (384, 4, 4, 6, 80),
    "base": (512, 6, 6, 8, 80),
    "small": (768, 12, 12, 12, 80),
    "large-v3": (1280, 32, 32, 20, 128),
}
_WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "then",
    "goes",
    "home",
    "to",
    "sleep",
)
_WORDS_PER_S = 2.5  # of dictation


def draw_durations(workload: Workload, num_clips: int, *, seed: int) -> list[float]:
    """Return seconds of clips: 28 to 30 s, or dictation's 2 to 15 s with a median of 5."""
    random = np.random.default_rng(seed)
    if workload == "padded":
        return [float(value) for value in random.uniform(28.0, 30.0, num_clips)]
    return [float(value) for value in np.clip(random.lognormal(np.log(5.0), 0.5, num_clips), 2.0, 15.0)]


def write_clips(folder: Path, durations_s: Sequence[float], *, seed: int) -> tuple[Utterance, ...]:
    """Write FLAC files of a wandering voice-like tone, with as many words as a speaker would say."""
    random = np.random.default_rng(seed)
    voices = [draw_voice(random, max(durations_s)) for _ in range(10)]
    utterances = []
    for number, duration_s in enumerate(durations_s):
        num_samples = round(duration_s * SAMPLING_RATE)
        path = folder / f"{number:05d}.flac"
        soundfile.write(path, voices[number % len(voices)][:num_samples], SAMPLING_RATE)
        words = random.choice(_WORDS, max(1, round(duration_s * _WORDS_PER_S)))
        utterances.append(
            Utterance(id=path.stem, audio=str(path), duration_s=num_samples / SAMPLING_RATE, text=" ".join(words))
        )
    return tuple(utterances)


def write_sentences(folder: Path, num_clips: int, *, max_s: float, seed: int) -> tuple[Utterance, ...]:
    """Write FLAC files of synthetic sentences in micro's own voices, with what is said."""
    voices = TRAINING_VOICES
    utterances = []
    for number, speech in enumerate(speak_timed(num_clips, voices=voices, max_s=max_s, seed=seed)):
        path = folder / f"{number:05d}.flac"
        soundfile.write(path, speech.waveform, SAMPLING_RATE)
        text = " ".join(piece.text for piece in speech.pieces)
        duration_s = len(speech.waveform) / SAMPLING_RATE
        utterances.append(Utterance(id=path.stem, audio=str(path), duration_s=duration_s, text=text))
    return tuple(utterances)


def draw_voice(random: np.random.Generator, duration_s: float) -> Waveform:
    """Return a harmonic tone (S,) whose pitch and loudness wander, with a little noise."""
    num_samples = int(duration_s * SAMPLING_RATE) + 1
    pitch_hz = 120.0 + 60.0 * np.cumsum(random.standard_normal(num_samples)) / np.sqrt(num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLING_RATE
    voice = sum(random.uniform(0.2, 1.0) * np.sin(k * phase) / k for k in range(1, 20))
    loudness = np.repeat(random.uniform(0.0, 1.0, num_samples // 1_600 + 1), 1_600)[:num_samples]
    noise = 0.01 * random.standard_normal(num_samples)
    return np.asarray((0.2 * loudness * voice + noise).clip(-1.0, 1.0), np.float32)


def save_random_model(folder: Path, shape: Shape, *, context: AudioContext, seed: int) -> Checkpoint:
    """Write a Whisper of a published shape with random weights, that may write any token but the end token.

    Without the end token every system decodes exactly as many tokens as it is allowed to.
    """
    width, layers, decoder_layers, heads, mels = _WIDTH_LAYERS_DECODER_LAYERS_HEADS_MELS[shape]
    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, decoder_layers=decoder_layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, num_mel_bins=mels,
        vocab_size=51_865, dropout=0.0, bos_token_id=50_257, eos_token_id=50_257, pad_token_id=50_257,
        decoder_start_token_id=50_258, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    set_audio_context(config, context)
    micro = resolve_folder("micro")
    model = TrimmedWhisper(config)
    model.generation_config = GenerationConfig.from_pretrained(micro, local_files_only=True)
    model.generation_config.suppress_tokens = [config.eos_token_id]
    tokenizer = WhisperTokenizerFast.from_pretrained(micro, local_files_only=True)
    save_checkpoint(Checkpoint(model=model, tokenizer=tokenizer, source=str(folder)), folder)
    return load_checkpoint(folder)
