"""Data-parallel fine-tuning on Ray Train."""
