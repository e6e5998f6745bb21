"""tests/service/http."""
