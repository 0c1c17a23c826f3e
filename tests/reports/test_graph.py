import json
import random
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from kubeloop.reports import Graph, GraphLink, GraphNode, Page, Section, render_page
from kubeloop.reports.layout import lay_out

HOSTILE = "</script><script>alert('x')</script>\"><b>"


def render(graph: Graph) -> str:
    return render_page(Page(title="t", sections=[Section(heading="h", parts=[graph])]))


def build(links: Sequence[tuple[str, str]], **details: object) -> Graph:
    keys = dict.fromkeys(key for link in links for key in link)
    return Graph(
        nodes=[GraphNode(key=key, label=key, details=details) for key in keys],
        links=[GraphLink(start=start, end=end) for start, end in links],
    )


def random_links(size: int, *, seed: int) -> list[tuple[int, int]]:
    chance = random.Random(seed)
    return [tuple(chance.sample(range(size), 2)) for _ in range(2 * size)]  # type: ignore[misc]


def test_every_node_and_link_is_drawn() -> None:
    html = render(build([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]))

    assert html.count('<g class="box"') == 4
    assert html.count('<path class="arrow"') == 4


def test_details_reach_the_script_as_they_are() -> None:
    html = render(build([("a", "b")], accuracy=0.98, labels=["x", "y"]))

    (line,) = re.findall(r"const details = (.*);", html)
    shown = json.loads(line)
    assert shown[0]["rows"] == [["accuracy", "0.98"], ["labels", '[\n  "x",\n  "y"\n]']]


def test_text_of_data_cannot_become_markup() -> None:
    node = GraphNode(key="k", label=HOSTILE, caption=HOSTILE, details={HOSTILE: HOSTILE})
    graph = Graph(nodes=[node], links=[], caption=HOSTILE, legend={HOSTILE: "red"})

    html = render(graph)

    assert "<script>alert" not in html
    assert "<b>" not in html


def test_graph_of_one_node_and_of_none_are_drawn() -> None:
    assert '<g class="box"' in render(Graph(nodes=[GraphNode(key="a", label="a")], links=[]))
    assert "<svg" in render(Graph(nodes=[], links=[]))


def test_links_point_to_the_right() -> None:
    places = lay_out(4, [(0, 1), (1, 2), (0, 2), (3, 2)]).places

    assert [place.column for place in places] == [0, 1, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_nodes_and_passing_links_never_lie_on_each_other(seed: int) -> None:
    layout = lay_out(30, random_links(30, seed=seed))

    points = {*layout.places, *(point for route in layout.routes for point in route)}
    for column in {point.column for point in points}:
        rows = sorted(point.row for point in points if point.column == column)
        assert all(below - above >= 0.999 for above, below in pairwise(rows))


def test_cycles_are_drawn() -> None:
    layout = lay_out(3, [(0, 1), (1, 2), (2, 0), (1, 1)])

    assert sorted(place.column for place in layout.places) == [0, 1, 2]


def test_chain_is_a_straight_line() -> None:
    layout = lay_out(50, list(pairwise(range(50))))

    assert {place.row for place in layout.places} == {0.0}


def test_long_chain_is_laid_out() -> None:
    layout = lay_out(5000, list(pairwise(range(5000))))

    assert layout.places[-1].column == 4999
