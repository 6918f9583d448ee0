"""Corpora to manifests to Ray Datasets."""
