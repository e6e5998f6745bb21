"""tests/templates_store/files."""
