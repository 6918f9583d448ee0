"""Health of a run: heartbeats of its workers, errors that end it, and progress."""
