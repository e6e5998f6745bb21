"""tests/detector/questions."""
