"""templates_store/files."""
