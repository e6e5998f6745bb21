"""detector/scorers."""
