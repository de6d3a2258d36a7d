"""The options that stand in for a scenario's ``[migration]`` table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from migpool.errors import UsageError
from migpool.units import parse_rate

if TYPE_CHECKING:
    from migpool.scenario.schema import Scenario  # pydantic takes its time

DowntimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--downtime-limit",
        metavar="SECONDS",
        min=0.0001,
        max=86400,
        help="Switch over once what is left takes no longer than this.",
    ),
]
MaxBandwidthOption = Annotated[
    str | None,
    typer.Option(
        "--max-bandwidth", metavar="RATE", help='Most memory sent a second while the machine runs: "500MiB/s".'
    ),
]
InTurnOption = Annotated[
    bool | None,
    typer.Option(
        "--in-turn/--together",
        help="After the stop, save memory, iterable devices and the rest one after the other, or all at once.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a scenario is to be otherwise; ``None`` leaves it.

    Arguments:
        downtime_limit: in seconds.
        max_bandwidth: as it was written.
        in_turn: the opposite of ``together``.
    """

    downtime_limit: float | None = None
    max_bandwidth: str | None = None
    in_turn: bool | None = None

    def applied(self, scenario: Scenario) -> Scenario:
        """The scenario with these changes.

        Raises:
            UsageError: the bandwidth is no rate.
        """
        changes: dict[str, object] = {}
        if self.downtime_limit is not None:
            changes["downtime_limit"] = self.downtime_limit
        if self.max_bandwidth is not None:
            try:
                changes["max_bandwidth"] = parse_rate(self.max_bandwidth)
            except ValueError as error:
                raise UsageError(f"--max-bandwidth: {error}") from None
            if not changes["max_bandwidth"]:
                raise UsageError("--max-bandwidth: it must be over 0; leave it out for no limit")
        if self.in_turn is not None:
            changes["together"] = not self.in_turn
        return scenario.model_copy(update={"migration": scenario.migration.model_copy(update=changes)})
