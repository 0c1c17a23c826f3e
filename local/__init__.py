"""The embedded control plane: Kubernetes API, pod runner, operators and the KFP API in one process.

Its parts talk to each other only through the Kubernetes API (`client.Client`), so that each can be
swapped for the real thing. Only `kubeloop.cli` imports this package; it imports `kubeloop.errors`
and the services it hosts (`kubeloop.katib.suggestion`), nothing else of kubeloop.
"""
