"""Decoding as Whisper does it, the same for every engine: an encoded batch in, texts with what is known of them out."""
