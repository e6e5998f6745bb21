"""detector/questions."""
