"""What is known of languages."""

LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""ISO 639-1 codes of languages written without spaces between words, as openai-whisper lists them."""
