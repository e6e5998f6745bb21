"""tests/offline/pipeline."""
