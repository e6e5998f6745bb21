"""offline/report."""
