"""offline/data."""
