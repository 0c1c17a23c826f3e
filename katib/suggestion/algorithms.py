"""The built-in algorithms."""

from __future__ import annotations

from kubeloop.katib.suggestion.grid import GridSearch
from kubeloop.katib.suggestion.random_search import RandomSearch
from kubeloop.katib.suggestion.service import ALGORITHMS
from kubeloop.katib.suggestion.tpe import TpeSearch

ALGORITHMS.register("random", RandomSearch)
ALGORITHMS.register("tpe", TpeSearch)
ALGORITHMS.register("grid", GridSearch)
