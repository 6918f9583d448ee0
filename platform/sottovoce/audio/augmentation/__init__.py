"""Augmentation of training speech: drawn first, carried out second."""
