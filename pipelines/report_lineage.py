"""A run draws its own lineage, as a page that the KFP UI shows.

The component stands beside the pipelines and not among the components, because lineage is read with
what lies above those.
"""

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def report_lineage(
    lineage: dsl.Output[dsl.HTML],
    target: str = "",
    run_id: str = "",  # noqa: ARG001  # a part of what the cache looks for
) -> None:
    """Draw where things come from, as the record has it when the step runs.

    Not to be cached: the record is not an input; see `run_id`. Make it the last step.

    Args:
        lineage: An interactive picture: pan, zoom, click a box for its details.
        target: What `kubeloop lineage` accepts; empty: the run that the step belongs to.
        run_id: Give `dsl.PIPELINE_JOB_ID_PLACEHOLDER`, and no run takes the step from the cache,
            not even one that asks for caching everywhere.
    """
    from pathlib import Path

    from kubeloop.components.steps import find_namespace, open_step
    from kubeloop.pipelines.lineage.reporting import render_report

    with open_step(lineage.uri) as step:
        page = render_report(target or f"run:{step.run_id}", namespace=find_namespace())
    Path(lineage.path).write_text(page)
