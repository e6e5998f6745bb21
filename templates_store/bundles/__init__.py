"""templates_store/bundles."""
