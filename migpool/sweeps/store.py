"""What a sweep has computed, in a directory.

::

    sweep.json           which sweep it is: what a later call must be about
    points/N.parquet     some points each; N is the number of the first; written once, whole or not at all
    results.parquet      all of them in the order of their numbers, once they are complete
    index.html           the page

The columns are ``point``, one for each axis by its key, and those of :data:`~migpool.sweeps.form.OWN`.
``points/*.parquet`` can be read while the sweep goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from migpool.errors import MigpoolError, UsageError
from migpool.lab.run.machine_facts import machine_facts
from migpool.sweeps.form import OWN
from migpool.sweeps.measure import Row
from migpool.sweeps.points import Plan

if TYPE_CHECKING:
    import pyarrow as pa

Write = Callable[[Path, bytes], None]


class Store:
    """A sweep's directory, held by one process at a time.

    Arguments:
        folder: is made if it is not there.
        write: writes a file whole or not at all.

    Raises:
        UsageError: pyarrow is missing, the directory cannot be used, has another sweep, or is in use.
    """

    def __init__(self, folder: Path, plan: Plan, write: Write) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise UsageError("a sweep needs pyarrow: pip install 'migpool[cluster]'") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._folder = folder
        self._points = folder / "points"
        self._plan = plan
        self._write = write
        self._schema = self._made_schema()

    def __enter__(self) -> Self:
        folder = self._folder
        try:
            self._points.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"{folder} cannot be used: {error.strerror or error}: name another directory") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UsageError(f"{folder} is in use by another sweep that goes on: wait for it, or end it") from None
        try:
            self._claim()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def _claim(self) -> None:
        """See that what is there is of this sweep; leave word for later calls if nothing is."""
        sweep, told = self._plan.sweep, self._folder / "sweep.json"
        meant = {
            "sweep": sweep.file.model_dump(mode="json"),
            "scenario": sweep.table,
            "models": list(sweep.models),
            "seed": sweep.seed,
            "points": self._plan.count,
        }
        digest = hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()
        if told.exists():
            try:
                there = json.loads(told.read_text("utf-8"))["digest"]
            except (OSError, ValueError, KeyError, TypeError):
                raise UsageError(f"{told} is none that this command wrote: name another directory") from None
            if there != digest:
                raise UsageError(
                    f"{self._folder} has the points of another sweep, or of this one before it was changed, or its "
                    "scenario was: name another directory with --results"
                )
        elif any(self._points.iterdir()):
            raise UsageError(f"{self._points} has files of something else: name another directory with --results")
        else:
            text = json.dumps({"schema": 1, "digest": digest, **meant, "machine": str(machine_facts())}, indent=2)
            self._write(told, text.encode() + b"\n")
        for left in self._points.glob(".*.new"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)

    def done(self) -> set[int]:
        """The numbers of the points that are there."""
        return {number for part in self._parts() for number in self._read(part, ["point"]).column("point").to_pylist()}

    def add(self, rows: Sequence[Row]) -> None:
        """Keep what came of some points."""
        self._write_table(self._points / f"{rows[0]['point']:09d}.parquet", self._table(rows))

    def table(self) -> pa.Table:
        """All that is there, in the order of the points' numbers."""
        parts = [self._read(part, None) for part in self._parts()]
        return self._arrow.concat_tables(parts or [self._schema.empty_table()]).sort_by("point")

    def finish(self, table: pa.Table) -> Path:
        """Write the results into one file, which is returned."""
        path = self._folder / "results.parquet"
        self._write_table(path, table)
        return path

    def _table(self, rows: Iterable[Row]) -> pa.Table:
        return self._arrow.Table.from_pylist(list(rows), schema=self._schema)

    def _write_table(self, path: Path, table: pa.Table) -> None:
        sink = io.BytesIO()
        self._parquet.write_table(table, sink)
        self._write(path, sink.getvalue())

    def _parts(self) -> list[Path]:
        return sorted(self._points.glob("[0-9]*.parquet"))

    def _read(self, part: Path, columns: list[str] | None) -> pa.Table:
        try:
            return self._parquet.read_table(part, columns=columns, partitioning=None)
        except (OSError, self._arrow.ArrowException) as error:
            said = " ".join(str(error).split())[:200]
            raise MigpoolError(
                f"{part} cannot be read ({said}): remove it, and its points are computed again"
            ) from None

    def _made_schema(self) -> pa.Schema:
        arrow = self._arrow
        fields = [arrow.field("point", arrow.int64())]
        for at, axis in enumerate(self._plan.sweep.file.axes):
            fields.append(arrow.field(axis.key, self._type_of(at, numeric=axis.numeric)))
        fields += [arrow.field(name, arrow.type_for_alias(kind)) for name, kind in OWN.items()]
        return arrow.schema(fields)

    def _type_of(self, at: int, *, numeric: bool) -> Any:
        axis = self._plan.sweep.file.axes[at]
        seen = axis.grid() if axis.values is not None else list(axis.range)
        if all(isinstance(one, bool) for one in seen):
            return self._arrow.bool_()
        if not numeric:
            return self._arrow.string()
        return self._arrow.int64() if all(isinstance(one, int) for one in seen) else self._arrow.float64()
