"""The built-in algorithms."""

from __future__ import annotations

from kubeloop.katib.suggestion.asha import AshaSearch
from kubeloop.katib.suggestion.bayesian import BayesianSearch
from kubeloop.katib.suggestion.cma_es import CmaEsSearch
from kubeloop.katib.suggestion.darts import DartsSearch
from kubeloop.katib.suggestion.enas import EnasSearch
from kubeloop.katib.suggestion.grid import GridSearch
from kubeloop.katib.suggestion.hyperband import HyperbandSearch
from kubeloop.katib.suggestion.pbt import PbtSearch
from kubeloop.katib.suggestion.random_search import RandomSearch
from kubeloop.katib.suggestion.service import ALGORITHMS
from kubeloop.katib.suggestion.sobol import SobolSearch
from kubeloop.katib.suggestion.tpe import MultivariateTpeSearch, TpeSearch

ALGORITHMS.register("random", RandomSearch)
ALGORITHMS.register("grid", GridSearch)
ALGORITHMS.register("sobol", SobolSearch)
ALGORITHMS.register("tpe", TpeSearch)
ALGORITHMS.register("multivariate-tpe", MultivariateTpeSearch)
ALGORITHMS.register("cmaes", CmaEsSearch)
ALGORITHMS.register("bayesianoptimization", BayesianSearch)
ALGORITHMS.register("hyperband", HyperbandSearch)
ALGORITHMS.register("asha", AshaSearch)
ALGORITHMS.register("pbt", PbtSearch)
ALGORITHMS.register("enas", EnasSearch)
ALGORITHMS.register("darts", DartsSearch)
