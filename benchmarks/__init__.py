"""Benchmarks: each script measures one thing and leaves JSON in results/."""
