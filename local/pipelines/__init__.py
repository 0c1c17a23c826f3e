"""The KFP v2beta1 API and the engine that runs compiled pipelines.

The control plane composes `api.Pipelines`; everything else stays inside. Nothing here imports kfp:
a pipeline is read from its compiled file, and its tasks are Pods, made through `Client`.
"""
