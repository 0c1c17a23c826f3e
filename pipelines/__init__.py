"""Pipelines of kubeloop's components, their compiled form, submission and lineage.

`compiled/` holds the YAML to upload as it is.
"""
