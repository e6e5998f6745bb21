"""tests/offline/cli."""
