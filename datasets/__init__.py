"""Versioned datasets in an object store: sources, immutable commits, statistics, readers, stores.

Nobody outside this package knows the layout of a commit.
"""
