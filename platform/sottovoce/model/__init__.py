"""Whisper checkpoints and their audio context; no ray."""
