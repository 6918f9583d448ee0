"""Train micro, the embedded base model, from scratch on synthetic speech.

Two measures make it learn in minutes on two cores: an auxiliary CTC loss over letters on the encoder (Watanabe et al.
2017), which helps the decoder's cross-attention to align, and a compact vocabulary, in which one row stands for the
50 000 tokens that never occur, with the weight of all of them.
"""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from transformers import GenerationConfig, WhisperConfig, WhisperTokenizerFast

from sottovoce.config import Config
from sottovoce.demo.pool import SpeechPool, build_pool
from sottovoce.demo.pretrain_batches import LETTERS, PretrainBatch, PretrainBatches
from sottovoce.model.audio_context import AudioContext
from sottovoce.model.context import TrimmedWhisper, set_audio_context
from sottovoce.model.labels import IGNORED

logger = logging.getLogger(__name__)

_STATE_FILE = "state.pt"
# Standard deviation around the common row of tokens that never occurred, so that fine-tuning can distinguish them. At
# 0.05 their highest logit is 10 below the right token's in the closest of 300 cases; at 0.15 it is higher in some.
_UNUSED_SPREAD = 0.05


class PretrainConfig(Config):
    """How micro is trained."""

    num_utterances: int = 40_000
    """Synthetic utterances in the pool."""
    num_steps: int = 8_000
    audio_s_per_step: float = 100.0
    """Seconds of sound in one batch."""
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_fraction: float = 0.3
    """Fraction of the steps, at the end, in which the learning rate decays to zero."""
    alignment_weight: float = Field(default=0.3, ge=0.0)
    """Weight of the auxiliary letter loss."""
    save_every_steps: int = 250
    log_every_steps: int = 50
    num_processes: int = 2
    """Processes that synthesize the pool, and threads that train."""
    seed: int = 7


def micro_config() -> WhisperConfig:
    """Return the architecture, the largest that fits 26 MB in fp16 with Whisper's 51 865 tokens."""
    config = WhisperConfig(
        d_model=192, encoder_layers=4, decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=3,
        encoder_ffn_dim=512, decoder_ffn_dim=512, num_mel_bins=80, vocab_size=51_865, max_source_positions=1_500,
        max_target_positions=448, dropout=0.0, bos_token_id=50_257, eos_token_id=50_257,
        pad_token_id=50_257, decoder_start_token_id=50_258, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    set_audio_context(config, AudioContext(2.0, 10.0, padding="sound"))
    return config


def micro_generation_config(tokenizer: WhisperTokenizerFast) -> GenerationConfig:
    """Return a multilingual Whisper's generation config, without alignment heads, which are chosen after training."""
    vocabulary = tokenizer.get_vocab()
    first, last = vocabulary["<|en|>"], vocabulary["<|su|>"]
    languages = {token: index for token, index in vocabulary.items() if first <= index <= last}
    return GenerationConfig(
        begin_suppress_tokens=[220],
        bos_token_id=50_257, eos_token_id=50_257, pad_token_id=50_257, decoder_start_token_id=50_258,
        is_multilingual=True, lang_to_id=languages, max_initial_timestamp_index=50, max_length=448,
        no_timestamps_token_id=vocabulary["<|notimestamps|>"], prev_sot_token_id=vocabulary["<|startofprev|>"],
        return_timestamps=False, suppress_tokens=[], task="transcribe", language="en",
        task_to_id={"transcribe": vocabulary["<|transcribe|>"], "translate": vocabulary["<|translate|>"]},
    )  # fmt: skip


class Pretraining:
    """Model with a compact vocabulary, auxiliary head and optimizer; its state can be saved and restored."""

    def __init__(self, config: PretrainConfig, *, token_ids: Tensor) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        compact = micro_config()
        self._num_others = compact.vocab_size - len(token_ids)
        self._row_of = torch.full((compact.vocab_size,), len(token_ids))
        self._row_of[token_ids] = torch.arange(len(token_ids))
        self._token_ids = token_ids
        compact.vocab_size = len(token_ids) + 1
        compact.pad_token_id = int(self._row_of[compact.eos_token_id])
        compact._attn_implementation = (
            "eager"  # on a CPU a quarter faster than SDPA at these sizes, forward and backward
        )
        self.model = TrimmedWhisper(compact).train()
        self.letter_head = nn.Linear(compact.d_model, len(LETTERS) + 1)
        self.step = 0
        self.audio_s = 0.0
        self.parameters = [p for p in [*self.model.parameters(), *self.letter_head.parameters()] if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)

    def learning_rate(self) -> float:
        """Return the current learning rate: warm-up, plateau, then linear decay to zero."""
        config, step = self.config, self.step
        warm = min(1.0, (step + 1) / config.warmup_steps)
        left = (config.num_steps - step) / max(1.0, config.decay_fraction * config.num_steps)
        return config.learning_rate * warm * min(1.0, left)

    def train_step(self, batch: PretrainBatch) -> tuple[float, float]:
        """Take one optimizer step; return the token loss and the letter loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = self.model.model(
                input_features=batch.input_features, decoder_input_ids=self._row_of[batch.decoder_input_ids]
            )
            letter_scores = self.letter_head(output.encoder_last_hidden_state)
            token_loss = self._token_loss(output.last_hidden_state, batch.labels)
        letter_loss = self._letter_loss(letter_scores.float(), batch)
        self.optimizer.zero_grad(set_to_none=True)
        (token_loss + self.config.alignment_weight * letter_loss).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        self.audio_s += batch.audio_s
        return token_loss.item(), letter_loss.item()

    def _token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy over the used tokens and one row with the weight of all other tokens."""
        chosen = labels != IGNORED
        scores = self.model.proj_out(hidden[chosen]).float()
        weight = torch.zeros(scores.shape[1])
        weight[-1] = math.log(self._num_others)
        return nn.functional.cross_entropy(scores + weight, self._row_of[labels[chosen]])

    def _letter_loss(self, scores: Tensor, batch: PretrainBatch) -> Tensor:
        lengths = torch.full((scores.shape[0],), scores.shape[1])
        log_probs = scores.log_softmax(-1).transpose(0, 1)
        return nn.functional.ctc_loss(
            log_probs, batch.letters, lengths, batch.num_letters, zero_infinity=True, reduction="mean"
        )

    def full_model(self) -> TrimmedWhisper:
        """Return the model with all 51 865 rows; tokens that never occurred get their common row plus noise."""
        config = micro_config()
        full = TrimmedWhisper(config)
        state = self.model.state_dict()
        table = state["model.decoder.embed_tokens.weight"]
        generator = torch.Generator().manual_seed(self.config.seed)
        rows = table[-1] + _UNUSED_SPREAD * torch.randn(config.vocab_size, config.d_model, generator=generator)
        rows[self._token_ids] = table[:-1]
        state["model.decoder.embed_tokens.weight"] = state["proj_out.weight"] = rows
        full.load_state_dict(state)
        full.train(False)
        return full

    def save(self, folder: Path) -> None:
        """Write the state to a temporary file and rename it, so that a kill leaves the old state."""
        state = {
            "step": self.step,
            "audio_s": self.audio_s,
            "model": self.model.state_dict(),
            "letter_head": self.letter_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, folder / "state.tmp")
        (folder / "state.tmp").replace(folder / _STATE_FILE)

    def resume(self, folder: Path) -> None:
        """Restore a saved state if there is one."""
        if (folder / _STATE_FILE).exists():
            state = torch.load(folder / _STATE_FILE, weights_only=True)
            self.step = state["step"]
            self.audio_s = state["audio_s"]
            self.model.load_state_dict(state["model"])
            self.letter_head.load_state_dict(state["letter_head"])
            self.optimizer.load_state_dict(state["optimizer"])


def pretrain(config: PretrainConfig, *, output: Path, tokenizer_folder: Path) -> Pretraining:
    """Build the pool, and train to ``num_steps``, resuming where the last run stopped."""
    torch.set_num_threads(config.num_processes)
    output.mkdir(parents=True, exist_ok=True)
    pool = build_pool(
        output / "pool", num_utterances=config.num_utterances, seed=config.seed, num_processes=config.num_processes
    )
    tokenizer = WhisperTokenizerFast.from_pretrained(tokenizer_folder)
    training = Pretraining(config, token_ids=collect_token_ids(pool, tokenizer))
    training.resume(output)
    batches = PretrainBatches(
        output / "pool", tokenizer_folder,
        seed=config.seed, first_step=training.step, audio_s_per_step=config.audio_s_per_step,
    )  # fmt: skip
    loader = iter(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8))
    run(training, loader, output)
    return training


def run(training: Pretraining, batches: Iterator[PretrainBatch], output: Path) -> None:
    """Train to the last step, saving and logging regularly."""
    config, sums, start = training.config, [0.0, 0.0, 0.0], time.monotonic()
    with SummaryWriter(output / "tensorboard") as writer:
        while training.step < config.num_steps:
            batch = next(batches)
            token_loss, letter_loss = training.train_step(batch)
            sums = [sums[0] + token_loss, sums[1] + letter_loss, sums[2] + batch.audio_s]
            if training.step % config.log_every_steps == 0:
                seconds = time.monotonic() - start
                tokens, letters = sums[0] / config.log_every_steps, sums[1] / config.log_every_steps
                writer.add_scalar("loss/tokens", tokens, training.step)
                writer.add_scalar("loss/letters", letters, training.step)
                logger.info(
                    "step %d of %d: token loss %.3f, letter loss %.3f, %.2f steps/s, %.0f audio-s/s",
                    training.step, config.num_steps, tokens, letters,
                    config.log_every_steps / seconds, sums[2] / seconds,
                )  # fmt: skip
                sums, start = [0.0, 0.0, 0.0], time.monotonic()
            if training.step % config.save_every_steps == 0 or training.step == config.num_steps:
                training.save(output)


def collect_token_ids(pool: SpeechPool, tokenizer: WhisperTokenizerFast) -> Tensor:
    """Return all tokens that micro's labels can hold, sorted: from its texts, special ones, timestamps up to 10 s."""
    used = {token for text in pool.texts for token in tokenizer(f" {text}", add_special_tokens=False).input_ids}
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    used.update(range(vocabulary["<|endoftext|>"], vocabulary["<|10.00|>"] + 1))
    return torch.tensor(sorted(used))
