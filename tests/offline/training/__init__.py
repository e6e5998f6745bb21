"""tests/offline/training."""
