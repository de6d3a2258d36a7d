"""What is done with a stream besides migrating: inspecting, recording, replaying, snapshots; for programs, too.

:mod:`~migpool.streams.stream` is the part for programs, with an example at its top.
"""

from migpool.streams.stream import Stream, diff, layouts, open  # noqa: A004 -- streams.open(), as there is gzip.open()

__all__ = ["Stream", "diff", "layouts", "open"]
