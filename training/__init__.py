"""Training jobs: the PyTorchJob builder, the programs in it, the model package they write."""
