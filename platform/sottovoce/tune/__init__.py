"""Search of hyperparameters with Ray Tune, and comparison of audio contexts."""
