"""Training programs: each reads a dataset URI and writes a model package."""
