"""offline/recipe."""
