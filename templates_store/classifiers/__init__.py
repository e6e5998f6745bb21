"""templates_store/classifiers."""
