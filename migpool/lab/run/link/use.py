"""What a run says of its link: part of the form of ``--json``."""

from __future__ import annotations

from pydantic import Field

from migpool.lab.run.form import Form


class RelayCost(Form):
    """What the relay did where the kernel has no netem.

    Attributes:
        packets: how many it passed on; large ones that the kernel has yet to divide count once.
        lost: how many it lost as it was told to.
        overrun: how many were lost since it did not keep up.
        late_ms, late_99_ms: how much later than it should a packet went on: the median, and 99 of 100 were no later.
        cpu_ms: processor time that it took.
    """

    packets: int
    lost: int
    overrun: int
    late_ms: float
    late_99_ms: float
    cpu_ms: float


class LinkUse(Form):
    """The link that a run had, and its use.

    Attributes:
        rate: bytes a second each way; null without a limit.
        delay_ms, jitter_ms: one way.
        loss: probability for each packet, each way.
        queue_bytes: what may wait for the link at either end.
        mtu: bytes.
        by: what in the kernel and beside it imposes that.
        dropped: packets for which the queues at both ends had no room.
        clock_offset_ms: by how much the destination's clock was ahead.
        true_downtime_ms: of such a run, the downtime by the host's one clock; else null.
        forth, back: [time, bytes] from the source, and to it, since the link was there: the interface's counters, with
            headers and what was sent anew. Times are nanoseconds as those of a trace.
        relay: null without one.
    """

    rate: int | None
    delay_ms: float
    jitter_ms: float
    loss: float
    queue_bytes: int
    mtu: int
    by: str
    dropped: int
    clock_offset_ms: float = 0.0
    true_downtime_ms: float | None = None
    forth: list[tuple[int, int]] = Field(default=[])
    back: list[tuple[int, int]] = Field(default=[])
    relay: RelayCost | None = None
