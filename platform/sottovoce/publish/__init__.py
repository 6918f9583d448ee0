"""Publishing a trained model: its card, the Hub, and merged adapters."""
