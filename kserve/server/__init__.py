"""The model server that an endpoint's pods run: `python -m kubeloop.kserve.server`.

One transport-free data plane (`dataplane`) under thin routes for KServe's V1 and V2 REST protocols.
It loads model packages, which execute no code, and never talks to Kubernetes.

Image classification in V1: each of `instances` is an image, either nested lists of pixel values
from 0 to 255 (height by width, or by width and channels) or `{"b64": …}` with the bytes of an
image file. Each prediction is `{"label": …, "probabilities": {label: probability}}`.
Text classification: each of `instances` is a string, and the predictions are the same.
In V2 the inputs are the package's own; outputs are `probabilities` (FP32) and `label` (BYTES).
"""
