"""offline/pipeline."""
