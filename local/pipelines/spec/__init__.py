"""Compiled pipelines: read from what users hold, typed, and checked before anything runs."""
