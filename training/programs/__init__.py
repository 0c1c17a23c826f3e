"""Training programs: each reads a dataset URI and writes a model package."""

import os

# NB: torch reads it at its first allocation. Gradients of embeddings are tens of megabytes that are
# asked for anew at each step; with huge pages the system hands them out in a fraction of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
