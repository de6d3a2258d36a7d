"""A side's result as JSON, to cross from the process that migrated to the one that compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from migpool.lab.result import SideTrace
from migpool.lab.side import SideResult

__all__ = ["from_json", "to_json"]

_BARE = TypeAdapter(SideResult)


def to_json(result: SideResult) -> dict[str, Any]:
    """What ``json.dumps`` takes and :func:`from_json` gives back."""
    bare = _BARE.dump_python(replace(result, report=replace(result.report, spans=())), mode="json")
    return {"side": bare, "trace": SideTrace.of(result.report.spans).model_dump()}


def from_json(form: dict[str, Any]) -> SideResult:
    """The result again.

    Arguments:
        form: what :func:`to_json` made, after ``json.loads``.
    """
    result = _BARE.validate_python(form["side"])
    return replace(result, report=replace(result.report, spans=SideTrace.model_validate(form["trace"]).read()))
