"""Recurring runs: when they are due, and starting them."""
