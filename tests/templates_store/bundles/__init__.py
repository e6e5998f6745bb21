"""tests/templates_store/bundles."""
