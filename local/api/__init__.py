"""The Kubernetes API server: resources, storage, and the HTTP surface over them."""
