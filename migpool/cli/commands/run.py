"""``migpool run``: one model; ``migpool compare``: several, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from migpool.cli import options
from migpool.cli.invocation import Invocation
from migpool.cli.options import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning


def run(
    context: typer.Context,
    scenario: options.ScenarioArgument = "default",
    model: options.ModelOption = "pool",
    repeat: Annotated[int, typer.Option("--repeat", "--repeats", metavar="N", min=1, help="How many migrations.")] = 1,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    picture_file: options.PictureFile = None,
    report_file: options.ReportFile = None,
    seed: options.SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    tls: options.TlsOption = "",
    tls_hostname: options.TlsHostnameOption = "",
    fail_above: options.FailAbove = None,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Migrate a machine from one process to another under one threading model.

    Source and destination are processes of their own on this host. Ends with a
    time line of the switchover.

      [cyan]migpool run[/]      the default machine

      [cyan]migpool run small -m pool+receiver --repeat 5[/]

      [cyan]migpool run default --trace trace.json[/]

      [cyan]migpool run guest --max-bandwidth 500MiB/s[/]   a guest that writes its memory
    """
    invocation: Invocation = context.obj
    from migpool.cli.runs import run_models

    code = run_models(
        invocation,
        scenario,
        [model],
        repeats=repeat,
        json_file=json_file,
        trace_file=trace_file,
        picture_file=picture_file,
        report_file=report_file,
        seed=seed,
        tuning=Tuning(downtime_limit, max_bandwidth, in_turn, tls, tls_hostname),
        allowed=options.longest_allowed(fail_above),
    )
    raise typer.Exit(code)


def compare(
    context: typer.Context,
    scenario: options.ScenarioArgument = "default",
    models: options.ModelsOption = "",
    repeats: Annotated[
        int | None, typer.Option("--repeat", "--repeats", metavar="N", min=1, help="Migrations under each model.")
    ] = None,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    picture_file: options.PictureFile = None,
    report_file: options.ReportFile = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.", show_default=False)] = False,
    seed: options.SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    tls: options.TlsOption = "",
    tls_hostname: options.TlsHostnameOption = "",
    both_ways: Annotated[
        bool,
        typer.Option("--both-ways", help="Each model [cyan]--together[/] and [cyan]--in-turn[/].", show_default=False),
    ] = False,
    both_wires: Annotated[
        bool,
        typer.Option(
            "--both-wires",
            help="Each model with configs as sections of the main channel, and as jobs over the multifd channels.",
            show_default=False,
        ),
    ] = False,
    hosts: Annotated[
        tuple[str, str] | None,
        typer.Option("--hosts", metavar="A B", help="Workers of a Dask cluster: the source's, and the destination's."),
    ] = None,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="ADDRESS", help="With [cyan]--hosts[/]: the cluster's scheduler.")
    ] = "",
    insecure: options.InsecureOption = False,
    fail_above: options.FailAbove = None,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Migrate a machine under one threading model after the other; say which was the fastest.

    Each repetition makes every model once, in an order of its own. Each
    migration has two processes of its own on this host. The trace file holds
    the last run of each model. The report, migpool-report.html in the current
    directory unless told otherwise, is one page that needs no network.

      [cyan]migpool compare[/]      the default machine

      [cyan]migpool compare --models pool:2,per-device,pool+receiver --repeats 10[/]

      [cyan]migpool compare many --json result.json --trace trace.json[/]

      [cyan]migpool compare guest --both-ways[/]   memory, devices and the rest at once, or in turn

      [cyan]migpool compare default --both-wires[/]   configs as sections, or as jobs over multifd

      [cyan]migpool compare many --hosts A B --cluster tcp://HOST:8786 --tls pki[/]   between two hosts

      [cyan]migpool compare --models pool:4 --fail-above 500ms[/]   exit code 1 if any run took longer
    """
    invocation: Invocation = context.obj
    from migpool.cli.runs import Apart, run_models
    from migpool.errors import UsageError
    from migpool.lab.comparison import BOTH_WAYS, BOTH_WIRES, Variant
    from migpool.scenario.model_syntax import parse_models

    if no_report and report_file is not None:
        raise UsageError("--report and --no-report say the opposite: give one of them")
    if bool(hosts) is not bool(cluster):
        raise UsageError("--hosts and --cluster belong together: give the two workers and the scheduler's address")
    if insecure and not hosts:
        raise UsageError("--insecure is for --hosts: on this host no stranger can connect")
    ways: Sequence[Variant] = BOTH_WAYS if both_ways else (Variant(),)
    wires: Sequence[Variant] = BOTH_WIRES if both_wires else (Variant(),)
    names = [one.name for one in parse_models(models)] if models else []
    code = run_models(
        invocation,
        scenario,
        names,
        repeats=repeats,
        json_file=json_file,
        trace_file=trace_file,
        picture_file=picture_file,
        report_file=report_file,
        default_report=not no_report,
        seed=seed,
        tuning=Tuning(downtime_limit, max_bandwidth, in_turn, tls, tls_hostname),
        variants=[way.also(wire) for way in ways for wire in wires],
        apart=Apart(cluster, hosts, insecure) if hosts else None,
        allowed=options.longest_allowed(fail_above),
    )
    raise typer.Exit(code)
