"""What a transcriber tells the gateway about a model it has loaded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """One loaded model."""

    min_window_s: float
    """The shortest context it reads; what is shorter is padded to it."""
    max_window_s: float
    """The longest window it reads."""
    language_names: dict[str, str]
    """English name, lower case, of each ISO 639-1 code it knows."""
    key: str = ""
    """Which weights exactly: a transcriber loads them by this, and another version has another key."""
