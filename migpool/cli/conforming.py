"""What ``migpool conformance`` does: runs the checks with a line of progress, and prints and writes the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from migpool.cli.files import check_writable, write
from migpool.conformance.devices.naming import check_list, subject_of
from migpool.conformance.running import run_checks
from migpool.conformance.showing import Report
from migpool.lab.table import console_for
from migpool.scenario.plugins import describe

__all__ = ["check_plugin"]


def check_plugin(
    plugin: str,
    options: Sequence[str],
    count: int,
    models: str,
    *,
    every_wait: bool,
    limit: float,
    markdown: Path | None,
    json_file: Path | None,
    stream: TextIO,
) -> int:
    """Check a plug-in and return the exit code; see ``migpool conformance --help`` for the arguments.

    Raises:
        UsageError: an argument is wrong, or a file cannot be written.
        PluginError: there is no such plug-in, or it is broken.
    """
    check_writable(markdown, json_file)
    subject = subject_of(plugin, options, count)
    found = check_list(models, every_wait=every_wait)
    console = console_for(stream)
    with console.status("") as status:
        findings = [
            *run_checks(
                subject,
                found,
                limit,
                lambda check: status.update(f"{found.index(check) + 1}/{len(found)}  {check}: {check.about}"),
            )
        ]
    report = Report(plugin, _package(plugin), ", ".join(options), findings)
    console.print(report.table())
    if markdown is not None:
        write(markdown, report.markdown())
    if json_file is not None:
        write(json_file, report.to_json())
    return 1 if report.failed else 0


def _package(name: str) -> str:
    found = (one for one in describe() if one.kind == "device" and one.name == name)
    return next((f"{one.distribution} {one.version}".strip() for one in found), "")
