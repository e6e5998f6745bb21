"""tests/templates_store/classifiers."""
