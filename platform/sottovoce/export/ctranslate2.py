"""The formats of CTranslate2: a checkpoint converted for OpenNMT's C++ decoder, which faster-whisper uses, too.

The variant's ``config.json`` holds the keys of both: CTranslate2's lists of suppressed tokens, languages and alignment
heads beside those of transformers. So the folder loads here, in faster-whisper, and, with weights added, elsewhere.
"""

import copy
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sottovoce.errors import ConfigError
from sottovoce.model.checkpoint import Checkpoint
from sottovoce.model.onednn_linear import plain_linear
from sottovoce.words.cross_attention import alignment_heads

logger = logging.getLogger(__name__)

_CONFIG = "config.json"


def write_ctranslate2(checkpoint: Checkpoint, folder: Path, *, variant: str, versions: dict[str, str]) -> None:
    """Convert a checkpoint: the exporter of the CTranslate2 formats in ``FORMATS``.

    Args:
        checkpoint: float32, on the CPU; an adapter is merged already.
        folder: the variant's folder with configs and tokenizer files.
        variant: ``ct2-`` and the precision that weights are stored in.
        versions: of the libraries; CTranslate2's is added.

    Raises:
        CheckpointError: alignment heads the decoder does not have.
        ConfigError: CTranslate2 is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise ConfigError(
            f"variant {variant} needs CTranslate2: pip install 'sottovoce[ctranslate2]', or leave it out of variants"
        ) from error
    alignment_heads(checkpoint.model)
    versions["ctranslate2"] = ctranslate2.__version__
    precision = variant.removeprefix("ct2-")
    with tempfile.TemporaryDirectory(dir=folder) as converted, plain_linear(checkpoint.model):
        _converter(checkpoint, folder).convert(converted, quantization=precision, force=True)
        _merge_configs(Path(converted) / _CONFIG, folder / _CONFIG)
        for path in Path(converted).iterdir():
            if path.name != _CONFIG:
                shutil.move(path, folder / path.name)
    logger.info("converted %s to %s", checkpoint.source, folder)


def _converter(checkpoint: Checkpoint, folder: Path) -> Any:  # noqa: ANN401 - ctranslate2 has no types
    """Return a converter of the model in memory; ``folder`` has its config."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """CTranslate2's converter, which would read weights from a folder or the Hub."""

        def load_model(self, *_: object, **__: object) -> object:
            """Return a copy of the checkpoint's model: the converter quantizes its weights in place."""
            return copy.deepcopy(checkpoint.model)

        def load_tokenizer(self, *_: object, **__: object) -> object:
            """Return the checkpoint's tokenizer."""
            return checkpoint.tokenizer

    return Converter(str(folder))


def _merge_configs(converted: Path, target: Path) -> None:
    """Add CTranslate2's keys to a config of transformers."""
    merged = json.loads(target.read_text(encoding="utf-8")) | json.loads(converted.read_text(encoding="utf-8"))
    target.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
