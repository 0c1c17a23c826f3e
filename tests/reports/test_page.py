from __future__ import annotations

import json
import re
import subprocess
import sys

import plotly.graph_objects as go

from kubeloop.reports import Note, Page, Plot, Section, Table, render_page

HOSTILE = "</script><script>alert('x')</script> & <b>"


def render(*parts: Note | Table | Plot) -> str:
    return render_page(Page(title="Report", sections=[Section(heading="Part", parts=parts)]))


def test_text_of_data_cannot_become_markup() -> None:
    page = Page(
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        sections=[
            Section(
                heading=HOSTILE,
                parts=[
                    Note(text=HOSTILE),
                    Table(columns=[HOSTILE], rows=[[HOSTILE]], caption=HOSTILE),
                ],
            )
        ],
    )

    html = render_page(page)

    assert "<script>alert" not in html
    assert "<b>" not in html
    escaped = "&lt;/script&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;"
    assert html.count(escaped) == 9  # the title stands twice, the fact is name and value


def test_values_of_a_plot_cannot_close_its_script() -> None:
    figure = go.Figure(go.Scatter(x=[HOSTILE], y=[1]))

    html = render(Plot(figure=figure.to_plotly_json()))

    assert "<script>alert" not in html
    (data,) = re.findall(r"const figure = (.*);", html)
    assert json.loads(data)["data"][0]["x"] == [HOSTILE]


def test_nan_in_a_plot_stays_valid_json() -> None:
    html = render(Plot(figure={"data": [{"y": [1.0, float("nan")]}], "layout": {}}))

    (data,) = re.findall(r"const figure = (.*);", html)
    assert json.loads(data, parse_constant=lambda name: f"invalid {name}") == {
        "data": [{"y": [1.0, None]}],
        "layout": {},
    }


def test_a_page_without_plots_is_small() -> None:
    assert len(render(Note(text="small"))) < 10_000


def test_a_page_loads_nothing_from_the_network() -> None:
    html = render(Plot(figure={"data": [], "layout": {}}))

    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", html)


def test_numbers_stand_right_and_missing_values_are_empty() -> None:
    html = render(Table(columns=["a", "b", "c"], rows=[[0.123456789, None, "text"]]))

    assert '<td class="number">0.123457</td><td></td><td>text</td>' in html


def test_highlighted_rows_are_marked() -> None:
    html = render(Table(columns=["a"], rows=[["x"], ["y"]], highlighted=frozenset({1})))

    assert '<tr class="highlighted"><td>y</td></tr>' in html
    assert "<tr><td>x</td></tr>" in html


def test_page_without_plots_does_not_carry_or_import_the_plotting_library() -> None:
    program = (
        "import sys; from kubeloop.reports import *;"
        "html = render_page(Page(title='t', sections=[Section(heading='h', parts=[Graph("
        "nodes=[GraphNode(key='a', label='a')], links=[])])]));"
        "print(len(html), 'plotly' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    length, has_plotly = done.stdout.split()
    assert has_plotly == "False"
    assert int(length) < 30_000
