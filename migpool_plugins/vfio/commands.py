"""VFIO devices: which of this host's can migrate, and emulated ones for any vfio-user client."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.lazy import group
from migpool.cli.options import Debug

__all__ = ["app"]

app = group(__doc__ or "")


@app.command()
def probe(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Say which VFIO devices of this host can migrate, and why others cannot.

    Shown are mediated devices, devices bound to VFIO, and virtual functions. One that
    can be opened is opened for a moment and asked; nothing about it is changed.

      [cyan]migpool vfio probe[/]

      [cyan]migpool vfio probe --json[/]
    """
    from migpool_plugins.vfio.kernel.devices import probe as look

    found = look()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps({"schema": 1, "devices": [asdict(finding) for finding in found]}, indent=2))
        return
    if not found:
        typer.echo("no mediated device, virtual function or device bound to VFIO is on this host")
        return
    import sys

    from rich.text import Text

    from migpool.lab.report.table import console_for, plain_table

    table = plain_table()
    for heading in ("Device", "Driver", "Group", "State"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Migrates")
    for finding in found:
        verdict = Text(", ".join(finding.flags)) if finding.migrates else Text(f"no: {finding.reason}", style="red")
        table.add_row(Text(finding.name, style="bold"), finding.driver, finding.group, finding.state, verdict)
    console_for(sys.stdout).print(table)


def complete_profile(incomplete: str) -> list[str]:
    from migpool_plugins.vfio.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


@app.command()
def serve(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE", help="A device profile: network-function, tiny ...", autocompletion=complete_profile
        ),
    ],
    path: Annotated[str, typer.Option("--socket", metavar="PATH", help="Where to listen.")],
    devices: Annotated[
        int, typer.Option("--devices", "-n", help="How many; with more than one at PATH.0, PATH.1 ...")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Decides the state; the same for both ends.")] = 1,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of a vfio entry, as in a scenario."),
    ] = None,
    pci_id: Annotated[
        str,
        typer.Option("--pci-id", metavar="VENDOR:DEVICE", help="What a VMM's guest sees, in hexadecimal digits."),
    ] = "1af4:10f0",
    _: Debug = False,
) -> None:
    """Serve emulated VFIO devices over vfio-user, until SIGINT or SIGTERM.

    Each is a PCI device that a VMM can attach, QEMU's vfio-user-pci say. A line on stdout
    for each says that it listens; a line on stderr says why one refused something, since a
    client is told but a number.

      [cyan]migpool vfio serve tiny --socket /tmp/vf[/]

      [cyan]migpool vfio serve network-function --socket /tmp/vf -n 4 -o precopy=true[/]

      [cyan]migpool vfio serve tiny --socket /tmp/vf -o 'fault={at=70000, kind="error"}'[/]
    """
    import re
    import signal

    from migpool.device import DeviceError
    from migpool.errors import UsageError
    from migpool.scenario.plugins import read_options
    from migpool_plugins.vfio.vfiouser.pci import PciId
    from migpool_plugins.vfio.vfiouser.port import ServedDevices

    numbers = re.fullmatch("([0-9a-f]{1,4}):([0-9a-f]{1,4})", pci_id, re.IGNORECASE)
    if numbers is None:
        raise UsageError(
            f"--pci-id is {pci_id!r}: give vendor and device as up to four hexadecimal digits each, 1af4:10f0"
        )
    identity = PciId(int(numbers[1], 16), int(numbers[2], 16))
    options = {**read_options(option or []), "profile": profile}
    ending = {signal.SIGINT, signal.SIGTERM}
    # Before any thread is started, so that all of them have it blocked and only sigwait sees it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        try:
            served = ServedDevices(options, devices, seed, path, lambda text: typer.echo(text, err=True), identity)
        except DeviceError as error:
            raise UsageError(str(error)) from error
        try:
            served.start()
            for name, where in zip(served.names, served.paths, strict=True):
                typer.echo(f"{name} listens at {where}")
            signal.sigwait(ending)
        finally:
            served.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
