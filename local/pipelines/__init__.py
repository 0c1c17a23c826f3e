"""The KFP v2beta1 API and the engine that runs compiled pipelines."""
