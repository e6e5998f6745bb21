"""tests/offline/tuning."""
