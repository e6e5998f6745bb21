"""tests/offline/evaluation."""
