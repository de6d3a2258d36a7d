"""What is done with a stream besides migrating: inspecting, recording, replaying, snapshots; for programs, too.

:mod:`~migpool.streams.stream` is the part for programs, with an example at its top.
"""

from migpool.streams.inspect.decoding import DecodedSection
from migpool.streams.inspect.summary import SectionSummary, StreamSummary
from migpool.streams.stream import Stream, diff, open  # noqa: A004 -- streams.open(), as there is gzip.open()
from migpool.wire.stream import StreamEvent

__all__ = ["DecodedSection", "SectionSummary", "Stream", "StreamEvent", "StreamSummary", "diff", "open"]
