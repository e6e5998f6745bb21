"""tests/offline/data."""
