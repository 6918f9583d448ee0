"""Audio in and out as numpy arrays; no torch, no ray."""
