"""Models of an experiment's trials: each below a prefix of its own, the losers' deleted.

A trial cannot know whether it will be the best, so each writes its model. Models that have lost are
deleted while the experiment goes on, so that two hundred trials need the disk of a few.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from kubeloop.datasets.stores import FileStore, open_store
from kubeloop.errors import InputError
from kubeloop.katib.results import ExperimentResult, TrialResult, TrialStatus
from kubeloop.katib.templates import TRIAL_NAME
from kubeloop.training.package import publish


class KeepModels(StrEnum):
    """Whose models stay."""

    BEST = "best"
    ALL = "all"
    NONE = "none"
    """Trials write no model at all."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise InputError(f"keep_models must be one of {', '.join(cls)}, not {value!r}.")


@dataclass(slots=True, kw_only=True)
class TrialModels:
    """The models of one experiment's trials."""

    uri: str
    """Prefix that holds one folder a trial."""
    keep: KeepModels
    """Whose models stay."""
    _cleaned: set[str] = field(default_factory=set)

    @property
    def template_uri(self) -> str:
        """Where a trial writes its model, in a trial template; empty: nowhere."""
        return "" if self.keep is KeepModels.NONE else self.uri_of(TRIAL_NAME)

    def uri_of(self, trial_name: str) -> str:
        """Where a trial writes its model."""
        return f"{self.uri}/{trial_name}/model"

    def clean(self, result: ExperimentResult) -> None:
        """Delete the models of trials that have ended and are not the best."""
        if self.keep is not KeepModels.BEST:
            return
        winner = find_winner(result)
        for trial in result.trials:
            is_lost = not trial.is_active and (winner is None or trial.name != winner.name)
            if is_lost and trial.name not in self._cleaned:
                _delete(f"{self.uri}/{trial.name}")
                self._cleaned.add(trial.name)

    def clear(self) -> None:
        """Delete all of them."""
        if self.keep is not KeepModels.NONE:
            _delete(self.uri)

    def list_kept(self, result: ExperimentResult) -> dict[str, str]:
        """URIs of the models of trials that succeeded, by trial, where all are kept."""
        if self.keep is not KeepModels.ALL:
            return {}
        succeeded = [trial for trial in result.trials if trial.status is TrialStatus.SUCCEEDED]
        return {trial.name: self.uri_of(trial.name) for trial in succeeded}

    def publish(self, trial_name: str, *, store: str) -> str:
        """Publish a model under its digest; it also stays where it was, for a retry.

        Raises:
            InputError: The trial has written none.
        """
        return publish(self.uri_of(trial_name), store)


def find_winner(result: ExperimentResult) -> TrialResult | None:
    """The best trial that came to its end; one that was stopped early has written no model."""
    return result.best_of(trial for trial in result.trials if trial.status is TrialStatus.SUCCEEDED)


def _delete(uri: str) -> None:
    store = open_store(uri)
    store.clear()
    if isinstance(store, FileStore):
        with contextlib.suppress(OSError):  # a trial that is being ended may write once more
            shutil.rmtree(store.root)
