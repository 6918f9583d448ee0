"""Files that ship with the package."""

from pathlib import Path

MICRO_FOLDER = Path(__file__).resolve().parent / "micro"
"""The embedded base model's checkpoint folder."""
