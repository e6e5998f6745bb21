"""service/inference."""
