"""Long-form transcription: cut a recording into windows and join their texts."""
