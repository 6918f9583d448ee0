"""The metrics of a run: measured, written to its folder, sent to trackers and to Ray."""
