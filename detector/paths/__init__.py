"""Ways from an image to a class template. Here: the straight line. Not here: what is asked along them (`questions`)."""

from modeguard.detector.paths.straight import check_alphas, evenly_spaced, straight_path

__all__ = ["check_alphas", "evenly_spaced", "straight_path"]
