"""offline/training."""
