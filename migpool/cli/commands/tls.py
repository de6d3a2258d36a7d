"""Make certificates or a key, for connections that are encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.lazy import group
from migpool.cli.options import Debug
from migpool.cli.output import say

app = group(__doc__ or "")


@app.command("new")
def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="A name or address of the destination's host; may stand again."),
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, max=3650, help="How long they hold.")] = 30,
    psk: Annotated[
        bool, typer.Option("--psk", help="A shared key instead of certificates.", show_default=False)
    ] = False,
    _: Debug = False,
) -> None:
    """Make a test authority with a certificate for each end, or a key that both share.

    The files are those that QEMU's tls-creds-x509 and tls-creds-psk read. Copy
    the directory to the other host in a way that nobody else can read.

      [cyan]migpool tls new pki --name dest.example.org --name 192.0.2.7[/]

      [cyan]migpool receive default --listen tcp:0.0.0.0:4444 --tls pki[/]
    """
    from migpool.transport.authority import new_authority, new_key

    if psk:
        from migpool.errors import UsageError

        if names:
            raise UsageError("--name is for certificates: a shared key is for no host")
        new_key(directory)
        say(f"{directory}: a shared key; needs Python 3.13 or later where migpool uses it")
        return
    new_authority(directory, names or (), days)
    say(f"{directory}: certificates of a test authority, for localhost{''.join(f', {name}' for name in names or ())}")
