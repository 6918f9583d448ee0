"""Whisper's decoding, shared by all engines: from an encoded batch to texts with scores."""
