"""tests/templates_store/images."""
