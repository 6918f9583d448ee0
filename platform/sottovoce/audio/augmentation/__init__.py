"""Augmentation of training speech: parameters are sampled first and applied second."""
