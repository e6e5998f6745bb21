"""templates_store/images."""
