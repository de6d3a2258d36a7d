"""``migpool send``: the source's side; ``migpool receive``: the destination's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli import options, streamfile
from migpool.cli.invocation import Invocation
from migpool.cli.options import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning
from migpool.errors import UsageError


def send(
    context: typer.Context,
    scenario: options.ScenarioArgument,
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="tcp:HOST:PORT or unix:PATH.")],
    channels: streamfile.ChannelsOption = 0,
    uuid: streamfile.UuidOption = None,
    no_return_path: streamfile.NoReturnPath = False,
    idle: streamfile.IdleOption = 60,
    model: options.ModelOption = "pool",
    count: options.Count = 1,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    seed: options.SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    tls: options.TlsOption = "",
    tls_hostname: options.TlsHostnameOption = "",
    insecure: options.InsecureOption = False,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Be the source: send the scenario's machine to a destination that listens.

    Both ends need the same scenario and seed; each may have its own model.
    Ctrl-C cancels in order: the machine runs here again. What only the
    destination knows is missing in the files.

      [cyan]migpool send small --to tcp:192.0.2.7:4444 --tls pki -m pool:4[/]

    Instead of a scenario, a stream file as QEMU or [cyan]receive --store[/] writes it:

      [cyan]migpool send vm.mig --to tcp:192.0.2.7:4444 --channels 4[/]
    """
    invocation: Invocation = context.obj
    if streamfile.is_stream_file(scenario):
        streamfile.send_stream_file(
            invocation,
            Path(scenario),
            to,
            channels,
            uuid=uuid,
            return_path=not no_return_path,
            idle=idle,
            tls=tls,
            tls_hostname=tls_hostname,
            insecure=insecure,
        )
        return
    streamfile.check_scenario_options(channels, uuid, no_return_path)
    from migpool.cli.oneside import OneSide, send_machines

    tuning = Tuning(downtime_limit, max_bandwidth, in_turn, tls, tls_hostname)
    side = OneSide(invocation, scenario, model, "source", to, count, seed, tuning, insecure=insecure)
    raise typer.Exit(send_machines(side, json_file=json_file, trace_file=trace_file))


def receive(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp:HOST:PORT (port 0: any) or unix:PATH.")
    ],
    scenario: options.OptionalScenario = None,
    store: streamfile.StoreOption = None,
    channels: streamfile.ChannelsOption = 0,
    idle: streamfile.IdleOption = 60,
    switchover_ack: streamfile.SwitchoverAckOption = streamfile.SwitchoverAck.AUTO,
    model: options.ModelOption = "pool",
    count: options.Count = 1,
    seed: options.SeedOption = None,
    tls: options.TlsOption = "",
    tls_hostname: options.TlsHostnameOption = "",
    insecure: options.InsecureOption = False,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Be the destination: wait for a source, and load its machine.

    With [cyan]--store[/] the machine of any source becomes a file. Let the source have a
    return path: only then does it hear that a disk was full, and the machine goes on.

    Says on stderr where it listens, with [cyan]--log-format json[/] as a JSON object.
    Where others could connect it listens with [cyan]--tls[/] alone, which proves both ends
    and encrypts everything, or with [cyan]--insecure[/].

      [cyan]migpool receive small --listen tcp:0.0.0.0:4444 --tls pki -m pool+receiver[/]

      [cyan]migpool receive small --listen unix:/run/m.sock --count 0[/]

      [cyan]migpool receive --store vm.mig --listen tcp:0.0.0.0:4444 --tls pki --channels 4[/]
    """
    invocation: Invocation = context.obj
    if (store is None) == (scenario is None):
        raise UsageError("receive needs a SCENARIO to run, or --store FILE to store a machine of any kind")
    if store is not None:
        streamfile.receive_stream_file(
            invocation, store, listen, channels, idle, switchover_ack, tls=tls, insecure=insecure
        )
        return
    assert scenario is not None
    streamfile.check_scenario_options(channels)
    from migpool.cli.oneside import OneSide, receive_machines

    tuning = Tuning(tls=tls, tls_hostname=tls_hostname)
    side = OneSide(invocation, scenario, model, "destination", listen, count, seed, tuning, insecure=insecure)
    raise typer.Exit(receive_machines(side))
