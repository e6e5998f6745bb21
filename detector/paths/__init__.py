"""Ways from an image to a class template."""
