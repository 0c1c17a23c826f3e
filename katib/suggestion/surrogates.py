"""What Bayesian optimisation believes of the objective: a mean and a deviation at every point.

All are scikit-learn's, on the unit cube. Gaussian processes have one length scale a coordinate;
forests tell their deviation from how far their trees differ, boosted trees from quantiles.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006; Hutter et al.,
Algorithm runtime prediction: Methods and evaluation, 2014 (deviation of a forest).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from kubeloop.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_NUM_TREES = 100
_LEAST_DEVIATION = 1e-5


class Surrogate(ABC):
    """A model of the objective; losses come with zero mean and unit variance."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, points: Array, losses: Array) -> None:
        """Learn from evaluated points, one a row."""

    @abstractmethod
    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at each point."""

    def believe(self, points: Array) -> None:
        """Take its own prediction at pending points for their losses (the kriging believer)."""
        means, _ = self.predict(points)
        self.extend(points, means)

    @abstractmethod
    def extend(self, points: Array, losses: Array) -> None:
        """Learn from more points, with what else was found out left as it is."""


class GaussianProcess(Surrogate):
    """Katib's GP: a Matérn kernel with noise."""

    def fit(self, points: Array, losses: Array) -> None:
        self._points, self._losses = points, losses
        kernel = _build_kernel(points.shape[1])
        self._process = self._fit(kernel, optimizer="fmin_l_bfgs_b")

    def predict(self, points: Array) -> tuple[Array, Array]:
        import numpy as np

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # variances that round below 0
            means, deviations = self._process.predict(points, return_std=True)
        # The noise of a single trial is none of what can be found out.
        variances = deviations**2 - self._process.kernel_.k2.noise_level
        return means, np.sqrt(np.maximum(variances, _LEAST_DEVIATION**2))

    def extend(self, points: Array, losses: Array) -> None:
        import numpy as np

        self._points = np.vstack([self._points, points])
        self._losses = np.concatenate([self._losses, losses])
        self._process = self._fit(self._process.kernel_, optimizer=None)

    def _fit(self, kernel: Any, *, optimizer: str | None) -> Any:  # scikit-learn has no types
        from sklearn.gaussian_process import GaussianProcessRegressor

        process = GaussianProcessRegressor(
            kernel, alpha=1e-8, optimizer=optimizer, random_state=self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of length scales at their bounds
            return process.fit(self._points, self._losses)


class Trees(Surrogate):
    """What surrogates of trees share: they are grown again where points are added."""

    def fit(self, points: Array, losses: Array) -> None:
        self._points, self._losses = points, losses
        self.grow(points, losses)

    def extend(self, points: Array, losses: Array) -> None:
        import numpy as np

        self.fit(np.vstack([self._points, points]), np.concatenate([self._losses, losses]))

    @abstractmethod
    def grow(self, points: Array, losses: Array) -> None:
        """Grow the trees."""


class RandomForest(Trees):
    """Katib's RF."""

    def grow(self, points: Array, losses: Array) -> None:
        self._forest = self._build().fit(points, losses)

    def predict(self, points: Array) -> tuple[Array, Array]:
        import numpy as np

        means = np.array([tree.predict(points) for tree in self._forest.estimators_])
        inner = np.array(
            [tree.tree_.impurity[tree.apply(points)] for tree in self._forest.estimators_]
        )
        variances = means.var(axis=0) + inner.mean(axis=0)
        return means.mean(axis=0), np.maximum(np.sqrt(variances), _LEAST_DEVIATION)

    def _build(self) -> Any:  # scikit-learn has no types
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(_NUM_TREES, min_samples_leaf=3, random_state=self.seed)


class ExtraTrees(RandomForest):
    """Katib's ET: splits are drawn at random."""

    def _build(self) -> Any:  # scikit-learn has no types
        from sklearn.ensemble import ExtraTreesRegressor

        return ExtraTreesRegressor(_NUM_TREES, min_samples_leaf=3, random_state=self.seed)


class BoostedTrees(Trees):
    """Katib's GBRT: the median, and half the distance between the quantiles at ±1 sigma."""

    def grow(self, points: Array, losses: Array) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        self._models = [
            GradientBoostingRegressor(
                loss="quantile", alpha=alpha, n_estimators=30, random_state=self.seed
            ).fit(points, losses)
            for alpha in (0.16, 0.5, 0.84)
        ]

    def predict(self, points: Array) -> tuple[Array, Array]:
        import numpy as np

        low, middle, high = (model.predict(points) for model in self._models)
        return middle, np.maximum((high - low) / 2, _LEAST_DEVIATION)


SURROGATES: Registry[type[Surrogate]] = Registry("base_estimator")
"""Katib's name → the model."""
SURROGATES.register("GP", GaussianProcess)
SURROGATES.register("RF", RandomForest)
SURROGATES.register("ET", ExtraTrees)
SURROGATES.register("GBRT", BoostedTrees)


def _build_kernel(num_coordinates: int) -> Any:  # scikit-learn has no types
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    return ConstantKernel(1.0, (1e-2, 1e3)) * Matern(
        [0.5] * num_coordinates, [(0.05, 20.0)] * num_coordinates, nu=2.5
    ) + WhiteKernel(1e-3, (1e-6, 0.5))
