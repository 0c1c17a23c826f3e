"""The `kubeloop` command: one file a concern; logic stays in the packages that it calls."""
