"""Katib's controllers: Experiment, Suggestion, Trial."""
