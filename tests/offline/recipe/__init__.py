"""tests/offline/recipe."""
