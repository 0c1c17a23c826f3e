"""Compiled pipelines, kept equal to their source by a test."""
