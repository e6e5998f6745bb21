"""offline/cli."""
