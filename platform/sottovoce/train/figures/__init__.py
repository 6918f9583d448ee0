"""The figures of a run: measured, kept in its folder, sent to trackers and to Ray's metrics."""
