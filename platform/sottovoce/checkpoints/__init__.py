"""Trusted storage of training state: written in the background, whole or absent, verified on reading."""
