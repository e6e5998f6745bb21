"""tests/detector/scorers."""
