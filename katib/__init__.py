"""Katib experiments: search spaces, the Experiment builder, results, and the suggestion service."""
