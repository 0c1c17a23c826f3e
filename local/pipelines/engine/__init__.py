"""Runs pipelines: one execution a run, tasks as Pods, and a record of all that happens."""
