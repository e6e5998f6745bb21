"""modeguard: tell adversarial images from natural ones by input-space mode connectivity."""
