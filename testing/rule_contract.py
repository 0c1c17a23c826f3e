"""What every validation rule must do; subclass `RuleContract` and give it a `name` fixture."""

from __future__ import annotations

import pytest

from kubeloop.datasets.findings import ScanLog, Severity
from kubeloop.datasets.statistics import Statistics
from kubeloop.datasets.validation import RULES, Rule, RuleContext
from kubeloop.datasets.validation.content_index import Repetitions


class RuleContract:
    """Tests of `Rule`; the fixture gives the name of a registered one."""

    @pytest.fixture
    def name(self) -> str:
        """Return the rule's name."""
        raise NotImplementedError

    def test_it_is_made_fresh_under_its_name(self, name: str) -> None:
        first, second = RULES[name](), RULES[name]()

        assert isinstance(first, Rule)
        assert first is not second
        assert first.name == name
        assert first.severity in Severity

    def test_it_finds_nothing_where_nothing_is(self, name: str) -> None:
        context = RuleContext(
            labels=(), statistics=Statistics(), log=ScanLog(), repetitions=Repetitions()
        )

        assert list(RULES[name]().conclude(context)) == []
