"""Search quality: each algorithm against random search and Optuna's own, 20 seeds each.

Branin, Hartmann-6 and a table of real trainings (see `kubeloop.testing.search_problems`), one trial
after the other, with the same budget for all. An algorithm is worse than its reference where the
bootstrap interval of the difference of mean regrets lies above 0. The intervals hold for all of the
comparisons together with 95 % (Bonferroni), for of thirty at 95 % each one or two fail by chance.
Then ASHA and hyperband on
the table: epochs until within 1 % of the best accuracy, against random search that trains each
configuration to the end. Then warm starts: searches of 20 trials after another of 20, with the
space narrowed by it, and told its trials besides. Last, how long a suggestion takes with 200
trials.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna

from kubeloop.katib.results import ExperimentResult, ExperimentStatus, TrialResult, TrialStatus
from kubeloop.katib.search_space import Float, Int, Parameter
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.earlier import render_earlier
from kubeloop.katib.suggestion.messages import (
    AlgorithmSetting,
    Experiment,
    GetSuggestionsRequest,
    ParameterAssignments,
    ParameterSpec,
    ParameterType,
    Trial,
)
from kubeloop.katib.suggestion.rungs import PARENT_LABEL
from kubeloop.katib.warm_start import narrow
from kubeloop.testing.search_problems import (
    NUM_EPOCHS,
    DigitsTable,
    Problem,
    build_branin,
    build_hartmann,
    build_table_parameters,
    build_table_problem,
)
from kubeloop.testing.suggestion_contract import build_experiment, build_parameter, build_trial

TABLE = Path(__file__).parents[2] / "build" / "bench" / "digits_table.json"
NUM_SEEDS = 20
NUM_RESAMPLES = 100_000
NUM_COMPARISONS = 34  # printed below
NEAR = 0.01
WANTED_RATIO = 1 / 3
LATENCY_TRIALS = 200
LATENCY_BUDGET_MS = 20
OF_FUNCTIONS = (
    "random",
    "sobol",
    "tpe",
    "multivariate-tpe",
    "cmaes",
    "bayesianoptimization",
    "pbt",
)
REFERENCES = {
    "tpe": "Optuna TPE",
    "multivariate-tpe": "Optuna TPE",
    "bayesianoptimization": "Optuna TPE",
    "cmaes": "Optuna CMA-ES",
}
"""What an algorithm is compared with; for others it is Optuna's random search."""
RANDOM = "Optuna random"
EPOCHS = build_parameter("epochs", ParameterType.INT, bounds=("1", str(NUM_EPOCHS)))
PBT = {"suggestion_trial_dir": "/data", "n_population": "8", "truncation_threshold": "0.25"}
CLIMBING: Mapping[str, Mapping[str, str]] = {
    "asha": {"resource_name": "epochs", "r_max": str(NUM_EPOCHS)},
    "hyperband": {"resource_name": "epochs", "r_l": str(NUM_EPOCHS)},
    "random": {},
}


NUM_WARM_TRIALS = 20
WARM_STARTS = ("cold", "narrowed", "told")
LEARNING = ("tpe", "cmaes", "bayesianoptimization")


@functools.cache
def list_problems() -> dict[str, Problem]:
    """By name."""
    table = build_table_problem(DigitsTable.open(TABLE))
    return {problem.name: problem for problem in (build_branin(), build_hartmann(), table)}


class Search:
    """One of our searches, asked for a trial at a time."""

    def __init__(
        self, algorithm: str, parameters: tuple[ParameterSpec, ...], *, seed: int, **settings: str
    ) -> None:
        self.service = ALGORITHMS[algorithm]()
        given = {**settings, "random_state": str(seed)}
        self.experiment = build_experiment(algorithm, parameters, settings=given)
        self.trials: list[Trial] = []

    def ask(self) -> tuple[ParameterAssignments, dict[str, float]]:
        """A suggestion, and its values as numbers."""
        reply = self.service.get_suggestions(
            GetSuggestionsRequest(
                experiment=self.experiment,
                trials=tuple(self.trials),
                current_request_number=1,
                total_request_number=len(self.trials) + 1,
            )
        )
        if reply.algorithm is not None:
            self.experiment = keep(self.experiment, reply.algorithm.algorithm_settings)
        (suggestion,) = reply.parameter_assignments
        return suggestion, {entry.name: float(entry.value) for entry in suggestion.assignments}

    def tell(self, suggestion: ParameterAssignments, accuracy: float) -> str:
        """The result of a suggestion; returns the trial's name."""
        name = suggestion.trial_name or f"t{len(self.trials)}"
        trial = build_trial(name, suggestion.assignments, value=repr(accuracy))
        spec = replace(trial.spec, labels=suggestion.labels)
        done = f"2026-01-01T{len(self.trials):08d}"  # keeps the order
        status = replace(trial.status, completion_time=done)
        self.trials.append(replace(trial, spec=spec, status=status))
        return name


def keep(experiment: Experiment, settings: tuple[AlgorithmSetting, ...]) -> Experiment:
    """The experiment with the settings of a reply, as the operator keeps them."""
    spec = experiment.spec.algorithm
    merged = {entry.name: entry for entry in (*spec.algorithm_settings, *settings)}
    algorithm = replace(spec, algorithm_settings=tuple(merged.values()))
    return replace(experiment, spec=replace(experiment.spec, algorithm=algorithm))


def search(name: str, algorithm: str, seed: int) -> float:
    """The regret of one search: how far its best is from the least loss."""
    problem = list_problems()[name]
    if algorithm.startswith("Optuna"):
        return search_with_optuna(problem, algorithm, seed)
    settings = PBT if algorithm == "pbt" else {}
    ours = Search(algorithm, problem.parameters, seed=seed, **settings)
    ours.experiment = limit(ours.experiment, problem.num_trials)
    losses = []
    for _ in range(problem.num_trials):
        suggestion, values = ours.ask()
        losses.append(problem.loss(values))
        ours.tell(suggestion, -losses[-1])
    return min(losses) - problem.least


def limit(experiment: Experiment, num_trials: int) -> Experiment:
    """The experiment with so many trials, one at a time."""
    spec = replace(experiment.spec, max_trial_count=num_trials, parallel_trial_count=1)
    return replace(experiment, spec=spec)


def search_with_optuna(problem: Problem, name: str, seed: int) -> float:
    """The same by Optuna itself, with its own defaults."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
        RANDOM: optuna.samplers.RandomSampler,
        "Optuna TPE": optuna.samplers.TPESampler,
        "Optuna CMA-ES": optuna.samplers.CmaEsSampler,
    }

    def objective(trial: optuna.Trial) -> float:
        return problem.loss(dict(suggest(trial, problem)))

    study = optuna.create_study(sampler=samplers[name](seed=seed))
    study.optimize(objective, n_trials=problem.num_trials)
    return study.best_value - problem.least


def suggest(trial: optuna.Trial, problem: Problem) -> Iterator[tuple[str, float]]:
    """The problem's parameters as Optuna's."""
    for parameter in problem.parameters:
        space = parameter.feasible_space
        if parameter.parameter_type is ParameterType.INT:
            low, high, step = int(space.min), int(space.max), int(space.step)
            yield parameter.name, trial.suggest_int(parameter.name, low, high, step=step)
        else:
            low_float, high_float = float(space.min), float(space.max)
            step_float = float(space.step) if space.step else None
            value = trial.suggest_float(parameter.name, low_float, high_float, step=step_float)
            yield parameter.name, value


def climb(algorithm: str, seed: int) -> tuple[int, int]:
    """Epochs until within 1 % of the best: with trials from scratch, and from checkpoints."""
    table = DigitsTable.open(TABLE)
    parameters = build_table_parameters()
    if algorithm != "random":
        parameters = (*parameters, EPOCHS)
    ours = Search(algorithm, parameters, seed=seed, **CLIMBING[algorithm])
    epochs_of: dict[str, int] = {}
    scratch = continued = 0
    while True:
        suggestion, values = ours.ask()
        num_epochs = int(values.get("epochs", NUM_EPOCHS))
        curve = table.curve(values)[:num_epochs]
        start = epochs_of.get(suggestion.labels.get(PARENT_LABEL, ""), 0)
        reached = next((i + 1 for i, a in enumerate(curve) if a >= table.best - NEAR), None)
        if reached is not None:
            return scratch + reached, continued + max(reached - start, 1)
        scratch, continued = scratch + num_epochs, continued + num_epochs - start
        epochs_of[ours.tell(suggestion, max(curve))] = num_epochs


def is_worse(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """The bootstrap interval of the difference of means; above 0: ours are worse.

    It holds for all comparisons together.
    """
    random = np.random.default_rng(0)
    means = [
        random.choice(np.array(values), (NUM_RESAMPLES, len(values))).mean(axis=1)
        for values in (ours, theirs)
    ]
    tail = 0.05 / NUM_COMPARISONS / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    return float(low), float(high)


def compare_regrets(pool: ProcessPoolExecutor, num_seeds: int) -> list[str]:
    """Print mean regrets and verdicts; returns what is worse than its reference."""
    failed = []
    for name in list_problems():
        algorithms = [*OF_FUNCTIONS, *(["grid"] if "table" in name else [])]
        everyone = [RANDOM, "Optuna TPE", "Optuna CMA-ES", *algorithms]
        futures = {
            each: [pool.submit(search, name, each, seed) for seed in range(num_seeds)]
            for each in everyone
        }
        regrets = {each: [f.result() for f in found] for each, found in futures.items()}
        print(f"\n{name}, {list_problems()[name].num_trials} trials: mean regret")
        for each, values in regrets.items():
            line = f"  {each:22} {statistics.fmean(values):8.4f}"
            if each in algorithms:
                for reference in dict.fromkeys((RANDOM, REFERENCES.get(each, RANDOM))):
                    ratio = statistics.fmean(values) / statistics.fmean(regrets[reference])
                    low, high = is_worse(values, regrets[reference])
                    verdict = "WORSE" if low > 0 else "better" if high < 0 else "as good"
                    line += f"   {ratio:5.2f}x {reference} ({verdict}, {low:+.4f} … {high:+.4f})"
                    if low > 0:
                        failed.append(f"{each} on {name} against {reference}")
            print(line)
    return failed


def compare_epochs(pool: ProcessPoolExecutor, num_seeds: int) -> list[str]:
    """Print epochs until near the best; returns what takes too many."""
    table = DigitsTable.open(TABLE)
    share = table.share_within(NEAR)
    print(
        f"\nEpochs until within 1 % of the best ({table.best:.3f}; {share:.1%} of the grid is so)"
    )
    futures = {
        each: [pool.submit(climb, each, seed) for seed in range(num_seeds)] for each in CLIMBING
    }
    epochs = {each: np.array([f.result() for f in found]) for each, found in futures.items()}
    base = epochs["random"].mean(axis=0)[0]
    failed = []
    for each, values in epochs.items():
        scratch, continued = values.mean(axis=0)
        print(
            f"  {each:10} {scratch:7.1f} from scratch {scratch / base:5.2f}x random, "
            f"{continued:7.1f} from checkpoints {continued / base:5.2f}x"
        )
        if each == "asha" and scratch / base > WANTED_RATIO:
            failed.append(f"asha takes {scratch / base:.2f} of random search's epochs, above 1/3")
    return failed


def search_again(name: str, algorithm: str, start: str, seed: int) -> list[float]:
    """The regret after each trial of a search that begins where another has ended."""
    problem = list_problems()[name]
    earlier = [] if start == "cold" else run_search(problem, algorithm, seed=seed + NUM_SEEDS)
    parameters = problem.parameters
    settings: dict[str, str] = {}
    if earlier:
        parameters = narrow_parameters(parameters, earlier)
    if start == "told":
        settings["warm_start"] = render_earlier((values, -loss) for values, loss in earlier)
    warm = replace(problem, parameters=parameters)
    losses = [loss for _, loss in run_search(warm, algorithm, seed=seed, **settings)]
    return [least - problem.least for least in itertools.accumulate(losses, min)]


def run_search(
    problem: Problem, algorithm: str, *, seed: int, **settings: str
) -> list[tuple[dict[str, float], float]]:
    """Values and losses of a short search."""
    ours = Search(algorithm, problem.parameters, seed=seed, **settings)
    ours.experiment = limit(ours.experiment, NUM_WARM_TRIALS)
    found = []
    for _ in range(NUM_WARM_TRIALS):
        suggestion, values = ours.ask()
        found.append((values, problem.loss(values)))
        ours.tell(suggestion, -found[-1][1])
    return found


def narrow_parameters(
    parameters: tuple[ParameterSpec, ...], earlier: list[tuple[dict[str, float], float]]
) -> tuple[ParameterSpec, ...]:
    """The parameters in the box that a warm start would search."""
    trials = tuple(
        TrialResult(
            name="", status=TrialStatus.SUCCEEDED, parameters=values, metrics={}, objective=-loss,
            message="",
        )
        for values, loss in earlier
    )  # fmt: skip
    result = ExperimentResult(
        name="", namespace="", status=ExperimentStatus.SUCCEEDED, reason="", message="",
        objective_metric="", is_maximized=True, max_trial_count=len(trials), trials=trials,
    )  # fmt: skip
    space: dict[str, Parameter] = {}
    for parameter in parameters:
        bounds = parameter.feasible_space
        if parameter.parameter_type is ParameterType.INT:
            space[parameter.name] = Int(
                min=int(bounds.min), max=int(bounds.max), step=int(bounds.step)
            )
        else:
            step = float(bounds.step) if bounds.step else None
            space[parameter.name] = Float(min=float(bounds.min), max=float(bounds.max), step=step)
    boxes = narrow(space, [result])
    return tuple(_cut(parameter, boxes[parameter.name]) for parameter in parameters)


def _cut(parameter: ParameterSpec, box: Parameter) -> ParameterSpec:
    assert isinstance(box, Float | Int)
    bounds = replace(parameter.feasible_space, min=repr(box.min), max=repr(box.max))
    return replace(parameter, feasible_space=bounds)


def compare_warm_starts(pool: ProcessPoolExecutor, num_seeds: int) -> list[str]:
    """Print how good a second search is; returns where being told does not help."""
    print(f"\nA search of {NUM_WARM_TRIALS} trials after one of {NUM_WARM_TRIALS}: mean regret")
    failed = []
    for name, algorithm in itertools.product(list_problems(), LEARNING):
        futures = {
            start: [pool.submit(search_again, name, algorithm, start, s) for s in range(num_seeds)]
            for start in WARM_STARTS
        }
        curves = {start: np.array([f.result() for f in found]) for start, found in futures.items()}
        wanted = curves["cold"][:, -1].mean()
        for start, regrets in curves.items():
            after = ", ".join(f"{regrets[:, n - 1].mean():8.4f} after {n}" for n in (1, 5, 10, 20))
            (near,) = np.nonzero(regrets.mean(axis=0) <= wanted + 1e-9)
            print(
                f"  {name:13} {algorithm:21} {start:9} {after}; as good as cold after "
                f"{near[0] + 1 if len(near) else f'more than {NUM_WARM_TRIALS}'}"
            )
        if curves["told"][:, -1].mean() > wanted:
            failed.append(f"a warm start of {algorithm} on {name} is worse than none")
    return failed


def measure_latency(algorithm: str) -> float:
    """Milliseconds of a suggestion with 200 trials of seven parameters, the best of several."""
    parameters = [
        build_parameter(f"x{index}", ParameterType.DOUBLE, bounds=("0", "1"), step="0.001")
        for index in range(6)
    ]
    settings = dict(PBT) if algorithm == "pbt" else dict(CLIMBING.get(algorithm, {}))
    ours = Search(algorithm, (*parameters, EPOCHS), seed=1, **settings)
    source = ours
    if algorithm == "bayesianoptimization":  # would take a minute to get there itself
        source = Search("random", (*parameters, EPOCHS), seed=2)
    for _ in range(LATENCY_TRIALS):
        suggestion, values = source.ask()
        source.tell(suggestion, sum(values.values()))
    ours.trials = source.trials
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        ours.ask()
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


def print_latencies() -> None:
    """Print how long suggestions take."""
    print(f"\nA suggestion with {LATENCY_TRIALS} trials, load {os.getloadavg()[0]:.1f}")
    for algorithm in (*OF_FUNCTIONS, "grid", "hyperband", "asha"):
        milliseconds = measure_latency(algorithm)
        note = "" if milliseconds <= LATENCY_BUDGET_MS else "  above 20 ms; off the event loop"
        print(f"  {algorithm:22} {milliseconds:7.1f} ms{note}")


def main() -> int:
    """Print all; returns 1 where something that should hold does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    is_there = TABLE.exists()
    DigitsTable.open(TABLE, num_processes=arguments.processes)
    if not is_there:
        print(f"trained the table in {time.monotonic() - started:.0f} s")
    with ProcessPoolExecutor(
        arguments.processes, mp_context=get_context("spawn"), initializer=warnings.simplefilter,
        initargs=("ignore",),
    ) as pool:  # fmt: skip
        failed = compare_regrets(pool, arguments.seeds)
        failed += compare_epochs(pool, arguments.seeds)
        failed += compare_warm_starts(pool, arguments.seeds)
    print_latencies()
    print("\n" + ("\n".join(f"Does not hold: {each}" for each in failed) or "All of it holds."))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
