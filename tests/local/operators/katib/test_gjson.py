"""GJSON paths, as success and failure conditions use them."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.local.operators.katib.gjson import MISSING, find_match, parse_path, query

COMPLETE = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
JOB: dict[str, Any] = {
    "metadata": {"name": "job", "labels": {"example.com/team": "a"}},
    "status": {
        "active": 2,
        "done": True,
        "phase": None,
        "conditions": [
            {"type": "Created", "status": "True", "tries": 1},
            {"type": "Complete", "status": "False", "tries": 2},
            {"type": "Complete", "status": "True", "tries": 3, "reason": "All (done) | ok"},
        ],
        "groups": [[1, 2], [3]],
    },
}


def test_the_default_condition_matches_the_entry_that_is_true() -> None:
    match = find_match(JOB, COMPLETE)

    assert match == JOB["status"]["conditions"][2]


def test_the_default_condition_does_not_match_a_false_entry() -> None:
    job = {"status": {"conditions": [{"type": "Complete", "status": "False"}]}}

    assert find_match(job, COMPLETE) is MISSING


@pytest.mark.parametrize("job", [{}, {"status": {}}, {"status": {"conditions": []}}])
def test_a_job_without_conditions_does_not_match(job: dict[str, Any]) -> None:
    assert find_match(job, COMPLETE) is MISSING


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("status.active", 2),
        ("status.conditions.1.type", "Complete"),
        ("status.conditions.#", 3),
        ("status.conditions.#.type", ["Created", "Complete", "Complete"]),
        ("status.conditions.#.reason", ["All (done) | ok"]),
        ('status.conditions.#(type=="Complete").tries', 2),
        ('status.conditions.#(type=="Complete")#.tries', [2, 3]),
        ('status.conditions.#(type=="Complete")#|0.tries', 2),
        ('status.conditions.#(type=="Complete")#|#', 2),
        ("status.conditions.#(tries>1)#.tries", [2, 3]),
        ("status.conditions.#(tries>=3).tries", 3),
        ("status.conditions.#(tries<2).type", "Created"),
        ("status.conditions.#(tries<=2)#.tries", [1, 2]),
        ('status.conditions.#(type!="Complete").type', "Created"),
        ('status.conditions.#(type%"C*d").type', "Created"),
        ('status.conditions.#(type!%"C*d").tries', 2),
        ('status.conditions.#(reason=="All (done) | ok").tries', 3),
        ("status.conditions.#(reason).tries", 3),
        ("status.conditions.#(type==Created).tries", 1),
        (r"metadata.labels.example\.com/team", "a"),
        ("status.phase", None),
        ("status.groups.#(#>1).0", 1),
        ("status.missing.key", MISSING),
        ("status.conditions.9", MISSING),
        ('status.conditions.#(type=="No")', MISSING),
        ('status.conditions.#(type=="No")#', []),
        ("status.active.#", MISSING),
    ],
)
def test_paths_lead_where_gjson_leads(path: str, expected: object) -> None:
    assert query(JOB, path) == expected


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("status", True),  # an object
        ("status.conditions", True),  # a list that is not empty
        ("status.active", False),  # neither, however true
        ("status.done", False),
        ('status.conditions.#(type=="No")#', False),
    ],
)
def test_only_objects_and_full_lists_count_as_a_match(*, path: str, holds: bool) -> None:
    assert (find_match(JOB, path) is not MISSING) is holds


def test_a_number_is_not_equal_to_its_text_nor_to_a_truth_value() -> None:
    document = {"items": [{"v": "1"}, {"v": True}, {"v": 1.0}]}

    assert query(document, "items.#(v==1)#") == [{"v": 1.0}]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "status..phase",
        "status.conditions.#(type==",
        'status.conditions.#(type=="Complete',
        'status.conditions.#(type=="Complete")x',
        "status.@reverse",
        "status.{a,b}",
        "stat*",
        'a.#(b.#(c=="d")=="e")',
        'a.#(b=="\\x")',
    ],
)
def test_a_path_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(InputError):
        parse_path(path)
