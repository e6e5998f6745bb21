"""offline/tuning."""
