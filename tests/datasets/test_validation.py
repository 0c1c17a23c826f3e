from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubeloop.datasets import Commit, Finding
from kubeloop.datasets.report import build_report
from kubeloop.datasets.validation import RULES, Rule, RuleContext
from kubeloop.errors import InputError
from kubeloop.reports import render_page
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.rule_contract import RuleContract

Ingest = Callable[..., Commit]
CLEAN = [(f"text {number}", "ab"[number % 2]) for number in range(40)]


class TestBuiltInRules(RuleContract):
    @pytest.fixture(params=sorted(RULES))
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


@pytest.fixture
def find(tmp_path: Path, ingest_text: Ingest) -> Callable[..., dict[str, Finding]]:
    """Ingest rows of text, label and split; return the findings by rule."""

    def run(*rows: tuple[str, str, str], **settings: object) -> dict[str, Finding]:
        lines = [*((text, label, "train") for text, label in CLEAN), *rows]
        source = tmp_path / "rows.csv"
        source.write_text("text,label,split\n" + "".join(f'"{t}","{n}",{s}\n' for t, n, s in lines))
        return {f.rule: f for f in ingest_text(source, **settings).record.findings}

    return run


Find = Callable[..., dict[str, Finding]]


def test_clean_data_has_no_findings(find: Find) -> None:
    assert find() == {}


@pytest.mark.parametrize(
    ("rows", "rule", "count", "example"),
    [
        ([("text 3", "b", "train")] * 2, "duplicates", 2, "'text 3' (3 times)"),
        ([("text 4", "b", "train")], "conflicting_labels", 1, "'text 4': a, b"),
        ([("text 5", "b", "test")], "leakage", 1, "'text 5': test, train"),
        ([("  ", "a", "train")], "empty_text", 1, "'  ' (a, train)"),
        ([("cafÃ© later", "a", "train")], "encoding", 1, "'cafÃ© later'"),
        ([(f"{n}", "A", "train") for n in range(9)], "label_names", 1, "'A', 'a'"),
        ([(f"{n}", " c", "train") for n in range(9)], "label_names", 1, "' c'"),
        ([("rare", "c", "train")], "few_examples", 1, "c: 1"),
    ],
)
def test_what_is_wrong_is_found(
    find: Find, rows: list[tuple[str, str, str]], rule: str, count: int, example: str
) -> None:
    finding = find(*rows)[rule]

    assert (finding.count, finding.severity) == (count, "warning")
    assert example in finding.examples


def test_the_severity_of_a_rule_may_be_changed(find: Find, tmp_path: Path) -> None:
    leak = ("text 5", "b", "test")

    assert find(leak, severities={"leakage": "off"}) == {}
    assert find(leak, severities={"leakage": "info"})["leakage"].severity == "info"
    with pytest.raises(InputError, match=r"Validation refuses .*1 contents are in more than one"):
        find(leak, severities={"leakage": "error"}, name="strict")
    assert not (tmp_path / "store" / "strict" / "commits").exists()
    with pytest.raises(InputError, match="Unknown validation rule 'leak'; known are"):
        find(leak, severities={"leak": "error"})
    with pytest.raises(InputError, match="must be one of error, warning, info, off"):
        find(leak, severities={"leakage": "fatal"})


def test_images_that_cannot_be_read_are_found(tmp_path: Path, ingest_text: Ingest) -> None:
    source = write_image_folder(tmp_path / "source", {"cat": 20, "dog": 20})
    (source / "cat" / "000.png").write_bytes(b"\x80\x04\x95 a pickle")
    (source / "cat" / "model.pkl").write_bytes(b"\x80\x04\x95 a pickle")

    made = ingest_text(source, kind="image_classification", max_corrupt_fraction=0.1)

    found = {finding.rule: finding for finding in made.record.findings}
    assert found["unreadable"].examples[0].startswith("cat/000.png: not an image")
    assert found["ignored_files"].examples == ("cat/model.pkl: not an image (.pkl extension)",)


def test_the_report_shows_findings_and_escapes_what_data_say(
    find: Find, tmp_path: Path, ingest_text: Ingest
) -> None:
    find()
    source = tmp_path / "rows.csv"
    source.write_text(source.read_text() + "<script>alert(1)</script>,a,train\n" * 2)

    page = render_page(build_report(ingest_text(source)))

    assert "examples repeat another" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


def test_a_users_rule_takes_part(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shouting(Rule):
        name = "shouting"

        def __init__(self) -> None:
            self._count = 0

        def observe(self, rows: object, *, split: str) -> None:
            texts = rows.column("text").to_pylist()  # type: ignore[attr-defined]
            self._count += sum(text.isupper() for text in texts)

        def conclude(self, context: RuleContext) -> Iterator[Finding]:
            yield self.find(f"{self._count} texts shout.", count=self._count)

    monkeypatch.setitem(RULES._entries, "shouting", Shouting)

    assert find(("HELLO", "a", "train"))["shouting"].message == "1 texts shout."
