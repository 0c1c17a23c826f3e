"""What trials reported, kept in SQLite: the table behind Katib's DB manager.

One row a report, by trial name, which is unique on a cluster by its random end. Reports that were
collected carry the pod that they come from: collecting again from that pod's start, as after a
crash, puts them in place of what was there, so that nothing is doubled.

Source: katib v0.19 `pkg/db/v1beta1/mysql/mysql.go`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType

from kubeloop.errors import PermanentError
from kubeloop.local.operators.katib.metrics import MetricLog, find_time

_SCHEMA = """
CREATE TABLE IF NOT EXISTS observation_logs (
  trial_name TEXT NOT NULL,
  time TEXT NOT NULL,
  metric_name TEXT NOT NULL,
  value TEXT NOT NULL,
  source TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS observation_logs_by_trial ON observation_logs (trial_name, time);
"""


class ObservationStore:
    """Reports of metrics by trial. A context manager; use it in one thread."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file at `path`, or a store in memory.

        Raises:
            PermanentError: The file cannot be opened.
        """
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(":memory:" if path is None else path)
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(_SCHEMA)
                self._add_source()
            except sqlite3.Error:
                self._database.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(
                f"Failed to open the metrics' database {str(path)!r}: {error}; "
                "stop the control plane that uses it, or choose another state folder."
            ) from error

    def __enter__(self) -> ObservationStore:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; later calls fail."""
        self._database.close()

    def report(self, trial_name: str, logs: Iterable[MetricLog], *, source: str = "") -> None:
        """Add reports; one without a valid time stamp is left out."""
        with self._database:
            self._insert(trial_name, logs, source)

    def replace(
        self, trial_name: str, logs: Iterable[MetricLog], *, source: str | None = None
    ) -> None:
        """Put these reports in place of all that the trial has, or has from `source`."""
        with self._database:
            self._delete(trial_name, source)
            self._insert(trial_name, logs, source or "")

    def read(
        self,
        trial_name: str,
        *,
        metric_name: str = "",
        start_time: str = "",
        end_time: str = "",
        limit: int = -1,
    ) -> tuple[MetricLog, ...]:
        """Reports by time, those of the same time as they came.

        Args:
            trial_name: The trial.
            metric_name: Only this metric; empty: all.
            start_time: Not before this RFC 3339 time; empty: from the first on.
            end_time: Not after it; empty: to the last.
            limit: At most so many; -1: all.
        """
        conditions, values = ["trial_name = ?"], [trial_name]
        for condition, value in (
            ("metric_name = ?", metric_name),
            ("time >= ?", _to_key(start_time) if start_time else ""),
            ("time <= ?", _to_key(end_time) if end_time else ""),
        ):
            if value:
                conditions.append(condition)
                values.append(value)
        rows = self._database.execute(
            "SELECT time, metric_name, value FROM observation_logs "  # noqa: S608  # fixed texts
            f"WHERE {' AND '.join(conditions)} ORDER BY time, rowid LIMIT ?",
            [*values, limit],
        )
        return tuple(
            MetricLog(time_stamp=_from_key(time), name=name, value=value)
            for time, name, value in rows
        )

    def list_sources(self, trial_name: str) -> set[str]:
        """Where the trial's collected reports come from."""
        rows = self._database.execute(
            "SELECT DISTINCT source FROM observation_logs WHERE trial_name = ? AND source != ''",
            (trial_name,),
        )
        return {source for (source,) in rows}

    def delete(self, trial_name: str) -> None:
        """Forget a trial."""
        with self._database:
            self._delete(trial_name, None)

    def _add_source(self) -> None:
        """Bring a file of an earlier version up to date."""
        columns = self._database.execute("PRAGMA table_info(observation_logs)").fetchall()
        if "source" not in [name for _, name, *_ in columns]:
            self._database.execute(
                "ALTER TABLE observation_logs ADD COLUMN source TEXT NOT NULL DEFAULT ''"
            )

    def _insert(self, trial_name: str, logs: Iterable[MetricLog], source: str) -> None:
        self._database.executemany(
            "INSERT INTO observation_logs VALUES (?, ?, ?, ?, ?)",
            [
                (trial_name, key, log.name, log.value, source)
                for log in logs
                if (key := _to_key(log.time_stamp))
            ],
        )

    def _delete(self, trial_name: str, source: str | None) -> None:
        self._database.execute(
            "DELETE FROM observation_logs WHERE trial_name = ? AND (? IS NULL OR source = ?)",
            (trial_name, source, source),
        )


def _to_key(time_stamp: str) -> str:
    """The time as a text that sorts; empty when it is none."""
    moment = find_time(time_stamp)
    return "" if moment is None else _render(moment)


def _render(moment: datetime) -> str:
    # NB: strftime does not pad years before 1000.
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def _from_key(key: str) -> str:
    """RFC 3339 without needless zeros, as Katib gives it."""
    whole, _, fraction = key.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"
