"""What the pipelines part remembers, in one SQLite file."""
