"""Sottovoce: adapt Whisper to your audio and serve it, on Ray."""
