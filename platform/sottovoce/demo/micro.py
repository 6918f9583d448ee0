"""Finish micro: measure it on unseen sentences, and write it as a checkpoint with its record and model card."""

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.progress import track
from torch import nn
from transformers import WhisperTokenizerFast

from sottovoce.demo.grammar import load_grammar, vocabulary, write_sentence
from sottovoce.demo.pool import SpeechPool, speak_sentence
from sottovoce.demo.pretrain import PretrainConfig, Pretraining, micro_generation_config
from sottovoce.demo.speech import TRAINING_VOICES, UNSEEN_VOICES
from sottovoce.demo.timed_sentences import speak_timed
from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
from sottovoce.recognize.torch_engine import TorchRecognizer
from sottovoce.schema import SAMPLING_RATE, DecodeOptions, Waveform
from sottovoce.text.score import score_texts
from sottovoce.words.alignment_heads import choose_heads, measure_heads

logger = logging.getLogger(__name__)

_CONTEXTS_S = tuple(range(2, 11))
_NORMALIZER: Final = "basic"  # the English one would join spoken digits into one number


@dataclass(frozen=True, kw_only=True)
class ContextScore:
    """Word error rate at one audio context."""

    context_s: int
    voices: str
    """``seen`` or ``unseen``: whether training used the voices."""
    wer: float
    low: float
    high: float
    num_words: int


@dataclass(frozen=True, kw_only=True)
class WordTiming:
    """The alignment heads, and the accuracy of the word times computed from them."""

    heads: list[list[int]]
    """Decoder layer and head of each."""
    num_windows: int
    """Windows of each kind of voice; the heads were chosen on voices seen in training."""
    seen_error_s: float
    """Median error of word starts and ends [s], compared with espeak-ng's own times."""
    unseen_error_s: float


def finish_micro(
    training: Pretraining, pool: SpeechPool, *, output: Path, tokenizer_folder: Path, num_windows: int, command: str
) -> None:
    """Write weights (fp16), tokenizer, generation config, ``record.json`` and README.md.

    Args:
        training: the finished training.
        pool: the speech it was trained on.
        output: checkpoint folder.
        tokenizer_folder: Whisper's tokenizer.
        num_windows: test windows for each context and kind of voice.
        command: the command that trained it, for the record.
    """
    tokenizer = WhisperTokenizerFast.from_pretrained(tokenizer_folder)
    model = training.full_model()
    model.generation_config = micro_generation_config(tokenizer)
    cast(nn.Module, model).half().float()  # measured as stored: rounded to fp16
    checkpoint = Checkpoint(model=model, tokenizer=tokenizer, source="micro")
    timing = time_micro(checkpoint)
    setattr(model.generation_config, "alignment_heads", timing.heads)  # noqa: B010 - transformers adds fields at will
    scores = measure_contexts(checkpoint, set(pool.texts), num_windows=num_windows)
    record = build_record(training, pool, scores, timing, command=command)
    cast(nn.Module, model).half()
    save_checkpoint(checkpoint, output)
    (output / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_card(record, output)


def time_micro(checkpoint: Checkpoint, *, num_windows: int = 100) -> WordTiming:
    """Choose the alignment heads on synthetic speech, and measure them on voices that training did not use."""
    seen, unseen = (
        speak_timed(num_windows, voices=voices, max_s=checkpoint.context.max_s, seed=seed)
        for seed, voices in enumerate((TRAINING_VOICES, UNSEEN_VOICES))
    )
    choice = choose_heads(checkpoint, seen)
    assert choice is not None, "synthetic sentences have several words"
    errors = measure_heads(checkpoint, unseen, choice.heads)
    return WordTiming(
        heads=[list(head) for head in choice.heads],
        num_windows=num_windows,
        seen_error_s=choice.error_s,
        unseen_error_s=round(float(np.median(np.abs(errors))), 4),
    )


def measure_contexts(checkpoint: Checkpoint, trained_texts: set[str], *, num_windows: int) -> list[ContextScore]:
    """Score clean windows of every context from 2 to 10 s, filled with sentences that training did not use."""
    recognizer = TorchRecognizer(checkpoint, num_threads=torch.get_num_threads())
    kinds = {"seen": TRAINING_VOICES, "unseen": UNSEEN_VOICES}
    runs = [(context_s, kind) for kind in kinds for context_s in _CONTEXTS_S]
    scores = []
    for context_s, kind in track(runs, description="WER by context"):
        generator = random.Random(f"test-{context_s}-{kind}")
        windows = [fill_window(generator, kinds[kind], trained_texts, context_s=context_s) for _ in range(num_windows)]
        results = recognizer.recognize([waveform for waveform, _ in windows], [DecodeOptions()] * num_windows)
        references = [text for _, text in windows]
        wer = score_texts(references, [result.text for result in results], normalizer=_NORMALIZER).wer
        logger.info("context %d s, %s voices: WER %.1f %%", context_s, kind, 100 * wer.rate)
        scores.append(
            ContextScore(
                context_s=context_s, voices=kind, wer=wer.rate, low=wer.low, high=wer.high, num_words=wer.num_reference
            )
        )
    return scores


def fill_window(
    generator: random.Random, voices: Sequence[str], trained_texts: set[str], *, context_s: int
) -> tuple[Waveform, str]:
    """Put one to three unseen sentences, with pauses, into a window of exactly this context."""
    grammar = load_grammar("sentences")
    window = np.zeros(context_s * SAMPLING_RATE, dtype=np.float32)
    position = round(generator.uniform(0.0, 0.2) * SAMPLING_RATE)
    texts: list[str] = []
    while len(texts) < 3:  # three sentences fill ten seconds
        text, _, speech = speak_sentence(grammar, generator, symbol="sentence", voices=voices)
        is_fitting = position + len(speech) <= len(window)
        if text in trained_texts or (not is_fitting and not texts):
            continue
        if not is_fitting:
            break
        window[position : position + len(speech)] = speech
        position += len(speech) + round(generator.uniform(0.2, 0.5) * SAMPLING_RATE)
        texts.append(text)
    return window, " ".join(texts)


def build_record(
    training: Pretraining, pool: SpeechPool, scores: Sequence[ContextScore], timing: WordTiming, *, command: str
) -> dict[str, object]:
    """Build the record of how the model was made and what was measured."""
    config: PretrainConfig = training.config
    grammar = load_grammar("sentences")
    return {
        "model": "micro",
        "command": command,
        "config": config.model_dump(),
        "steps": training.step,
        "audio_hours_read": round(training.audio_s / 3600, 1),
        "pool_hours": round(float(pool.durations_s.sum()) / 3600, 2),
        "pool_utterances": len(pool),
        "vocabulary_words": len(vocabulary(grammar)),
        "training_voices": list(TRAINING_VOICES),
        "unseen_voices": list(UNSEEN_VOICES),
        "unseen_sentence_share": round(_unseen_share(set(pool.texts)), 3),
        "normalizer": _NORMALIZER,
        "num_parameters": sum(parameter.numel() for parameter in training.full_model().parameters()),
        "word_timing": asdict(timing),
        "scores": [asdict(score) for score in scores],
    }


def _unseen_share(trained_texts: set[str], num_sentences: int = 2_000) -> float:
    """Return the fraction of the grammar's sentences that training did not use."""
    grammar, generator = load_grammar("sentences"), random.Random("share")
    texts = [write_sentence(grammar, generator) for _ in range(num_sentences)]
    return sum(text not in trained_texts for text in texts) / len(texts)


def write_card(record: dict[str, object], folder: Path) -> None:
    """Write README.md, the model card, from the record alone."""
    environment = Environment(
        loader=PackageLoader("sottovoce.demo", "assets"), undefined=StrictUndefined, autoescape=False, trim_blocks=True
    )  # Markdown from our own record needs no escaping
    data = ModelCardData(
        language="en", license="apache-2.0", library_name="transformers", pipeline_tag="automatic-speech-recognition"
    )
    content = environment.get_template("micro_card.md.j2").render(**record)
    ModelCard(f"---\n{data.to_yaml()}\n---\n{content}").save(folder / "README.md")
