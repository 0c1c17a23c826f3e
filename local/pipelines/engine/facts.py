"""What placeholders may say about a run."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from kubeloop.local.pipelines.storage.records import Run


def format_time(seconds: float) -> str:
    """A time as the API writes it (RFC 3339, UTC)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def resource_name(run: Run) -> str:
    """The name of the run as a resource: the pipeline's, made unique."""
    slug = re.sub(r"[^a-z0-9]+", "-", run.pipeline_name.lower()).strip("-")
    return f"{slug[:48].strip('-') or 'run'}-{run.run_id[:8]}"


def run_facts(run: Run) -> dict[str, str]:
    """Values of the placeholders about a run, by the placeholder's name."""
    return {
        "pipeline_job_name": run.display_name,
        "pipeline_job_resource_name": resource_name(run),
        "pipeline_job_uuid": run.run_id,
        "pipeline_job_create_time_utc": format_time(run.created_at),
        "pipeline_job_schedule_time_utc": format_time(run.scheduled_at),
        "pipeline_root": run.root,
    }
