"""HTML reports that stand alone: text, tables, graphs and interactive plots in one file.

Datasets, training, Katib and the pipelines write their pictures with it; it knows nothing of
them. A page loads nothing from the network, so that it opens from a disk, in the KFP UI's frame and
behind a firewall. Needs the `reports` extra.
"""

from kubeloop.reports.graph import Graph, GraphLink, GraphNode
from kubeloop.reports.page import Note, Page, Plot, Section, Table, render_page

__all__ = [
    "Graph",
    "GraphLink",
    "GraphNode",
    "Note",
    "Page",
    "Plot",
    "Section",
    "Table",
    "render_page",
]
