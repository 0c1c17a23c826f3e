"""Population based training: generations of trials that go on from the checkpoints of earlier ones.

Every trial says in labels, which are Katib's, of which generation it is and from which trial it
goes on. Once `n_population` trials of a generation have a result, the next one is made of them:
those in the worst `truncation_threshold` go on from one of the best, with its values (exploit), all
others from themselves with values that are changed a little, or drawn anew with
`resample_probability` (explore). Where more trials are asked for than a generation takes, it grows.
A trial that was killed or has failed is suggested once more.

What runs the trials gives each a folder of its own, mounted at `suggestion_trial_dir` in its pods,
and fills it before the trial starts with a copy of its parent's: `prepare_checkpoints` does so, in
a root that holds one folder an experiment with one a trial in it. On a cluster Katib mounts the
folder from the suggestion's volume (resume policy FromVolume), and the gRPC server prepares it.

NB: Katib's own service lets an exploiting trial go on from its own checkpoint with the values of a
better one; here it goes on from the better one's, as in the paper.

Source: Katib's `pbt`, pkg/suggestion/v1beta1/pbt; Jaderberg et al., Population Based Training of
Neural Networks, 2017.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kubeloop.katib.suggestion.messages import (
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    Trial,
    TrialConditionType,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.katib.suggestion.random_search import draw
from kubeloop.katib.suggestion.randomness import make_generator, suggestion_numbers
from kubeloop.katib.suggestion.service import SuggestionService
from kubeloop.katib.suggestion.settings import RANDOM_STATE, Setting
from kubeloop.katib.suggestion.space import assign
from kubeloop.katib.suggestion.space_search import Problem, read_problem
from kubeloop.katib.suggestion.trials import by_completion, find_points

GENERATION_LABEL = "pbt.suggestion.katib.kubeflow.org/generation"
PARENT_LABEL = "pbt.suggestion.katib.kubeflow.org/parent"
TRIAL_DIR = "suggestion_trial_dir"
"""The setting that names where a trial finds its folder."""

_LOST = (TrialConditionType.KILLED, TrialConditionType.FAILED)
_LEAST_POPULATION = 5
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_NAME_LENGTH = 8


def _share(name: str, *, is_required: bool) -> Setting:
    return Setting(
        name=name,
        type=float,
        is_allowed=lambda value: 0 <= value <= 1,
        rule="a number in [0, 1]",
        is_required=is_required,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A trial to be: what it is given, its generation and the trial that it goes on from."""

    texts: tuple[str, ...]
    generation: int
    parent: str = ""


class PbtSearch(SuggestionService):
    """Katib's `pbt`, also with a seed."""

    known_settings: ClassVar[tuple[Setting, ...]] = (
        Setting(
            name=TRIAL_DIR,
            type=str,
            rule="the absolute path of the folder that a trial goes on from",
            is_allowed=lambda value: value.startswith("/"),
            is_required=True,
        ),
        Setting(
            name="n_population",
            type=int,
            rule=f"an integer of {_LEAST_POPULATION} or more",
            is_allowed=lambda value: value >= _LEAST_POPULATION,
            is_required=True,
        ),
        _share("truncation_threshold", is_required=True),
        _share("resample_probability", is_required=False),
        RANDOM_STATE,
    )

    def get_suggestions(self, request: GetSuggestionsRequest) -> GetSuggestionsReply:
        problem = read_problem(request.experiment.spec, self.known_settings, trials=request.trials)
        suggestions = []
        members = _breed(problem, suggestion_numbers(request))
        for number, member in zip(suggestion_numbers(request), members, strict=True):
            generator = make_generator(problem.settings.seed, -1 - number)
            suffix = "".join(generator.choices(_LETTERS, k=_NAME_LENGTH))
            labels = {GENERATION_LABEL: str(member.generation)}
            suggestions.append(
                ParameterAssignments(
                    assignments=assign(problem.dimensions, member.texts),
                    trial_name=f"{request.experiment.name}-{suffix}",
                    labels={**labels, PARENT_LABEL: member.parent} if member.parent else labels,
                )
            )
        return GetSuggestionsReply(parameter_assignments=tuple(suggestions))

    def validate_algorithm_settings(self, request: ValidateAlgorithmSettingsRequest) -> None:
        read_problem(request.experiment.spec, self.known_settings)


def prepare_checkpoints(root: Path, name: str, suggestions: Iterable[ParameterAssignments]) -> None:
    """Make the folders of suggested trials, with what their parents left.

    Args:
        root: Holds the folders of all experiments.
        name: The experiment.
        suggestions: What the search has just suggested; those of other searches are left out.
    """
    for suggestion in suggestions:
        if GENERATION_LABEL not in suggestion.labels:
            continue
        folder = root / name / suggestion.trial_name
        shutil.rmtree(folder, ignore_errors=True)
        parent = suggestion.labels.get(PARENT_LABEL)
        if parent and (root / name / parent).is_dir():
            shutil.copytree(root / name / parent, folder)
        else:
            folder.mkdir(parents=True)


def _breed(problem: Problem, numbers: range) -> Iterator[Member]:
    """The next trials: those that were lost once more, then such of the newest generation."""
    lost = _find_lost(problem)
    pool, generation = _find_parents(problem)
    num_bred = sum(_generation(trial) == generation for trial in problem.trials)
    for number in numbers:
        if lost:
            yield lost.pop(0)
            continue
        generator = make_generator(problem.settings.seed, number)
        if not pool:
            texts = draw(problem.dimensions, seed=problem.settings.seed, number=number)
            yield Member(texts=tuple(texts), generation=0)
        else:
            yield _descend(problem, pool, num_bred, generation=generation, generator=generator)
        num_bred += 1


def _descend(
    problem: Problem,
    pool: Sequence[Member],
    index: int,
    *,
    generation: int,
    generator: random.Random,
) -> Member:
    """The heir of a member of the pool, which is ordered from the best to the worst."""
    num_cut = int(len(pool) * problem.settings.number("truncation_threshold"))
    position = index % len(pool)
    if position >= len(pool) - num_cut:
        better = pool[generator.randrange(num_cut)]
        return Member(texts=better.texts, generation=generation, parent=better.parent)
    own = pool[position]
    texts = tuple(
        _explore(problem, dimension_index, text, generator)
        for dimension_index, text in enumerate(own.texts)
    )
    return Member(texts=texts, generation=generation, parent=own.parent)


def _explore(problem: Problem, index: int, text: str, generator: random.Random) -> str:
    dimension = problem.dimensions[index]
    if not problem.settings.has("resample_probability"):
        return dimension.perturb(text, generator)
    if generator.random() < problem.settings.number("resample_probability"):
        return dimension.from_unit(generator.random())
    return text


def _find_parents(problem: Problem) -> tuple[list[Member], int]:
    """The first members of the newest generation that is whole, the best first, and the next.

    A member's parent is itself: the trial that its heirs go on from.
    """
    size = problem.settings.integer("n_population")
    by_generation: dict[int, list[tuple[float, Member]]] = {}
    for point in by_completion(find_points(problem.dimensions, problem.trials)):
        generation = _generation(point.trial)
        if generation is None or point.loss is None:
            continue
        member = Member(texts=point.texts, generation=generation, parent=point.trial.name)
        by_generation.setdefault(generation, []).append((point.loss, member))
    whole = [generation for generation, members in by_generation.items() if len(members) >= size]
    if not whole:
        return [], 0
    members = sorted(by_generation[max(whole)][:size], key=lambda entry: entry[0])
    return [member for _, member in members], max(whole) + 1


def _find_lost(problem: Problem) -> list[Member]:
    """Trials that were killed or failed, and that nothing has replaced."""
    lost: dict[Member, None] = {}
    kept = set()
    for trial in problem.trials:
        member = _identify(problem, trial)
        if member is None:
            continue
        if trial.status.condition in _LOST:
            lost[member] = None
        else:
            kept.add(member)
    return [member for member in lost if member not in kept]


def _identify(problem: Problem, trial: Trial) -> Member | None:
    values = {entry.name: entry.value for entry in trial.spec.parameter_assignments}
    generation = _generation(trial)
    if generation is None or any(d.name not in values for d in problem.dimensions):
        return None
    return Member(
        texts=tuple(values[dimension.name] for dimension in problem.dimensions),
        generation=generation,
        parent=trial.spec.labels.get(PARENT_LABEL, ""),
    )


def _generation(trial: Trial) -> int | None:
    label = trial.spec.labels.get(GENERATION_LABEL, "")
    return int(label) if label.isdecimal() else None
