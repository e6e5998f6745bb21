"""offline/evaluation."""
