"""tests/offline/attacks."""
