"""``migpool vfio``: VFIO devices of this host, and what stands in for them."""

from __future__ import annotations

import typer

from migpool.cli.probe import probe
from migpool.cli.serve import serve

__all__ = ["vfio_app"]

vfio_app = typer.Typer(
    help="VFIO devices: which of this host's can migrate, and emulated ones for any vfio-user client.",
    rich_markup_mode="rich",
    no_args_is_help=False,
)


@vfio_app.callback(invoke_without_command=True)
def nothing(context: typer.Context) -> None:
    """VFIO devices: which of this host's can migrate, and emulated ones for any vfio-user client."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


vfio_app.command()(probe)
vfio_app.command()(serve)
