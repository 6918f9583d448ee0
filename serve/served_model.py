"""What the transcriber tells the gateway about the model it holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """One loaded model."""

    name: str
    """Engine and variant, as in ``onnx-int8``."""
    min_window_s: float
    max_window_s: float
    """The longest window it reads."""
    language_names: dict[str, str]
    """English name, lower case, of each ISO 639-1 code it knows."""
