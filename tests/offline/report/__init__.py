"""tests/offline/report."""
