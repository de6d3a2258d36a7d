"""What a destination says last is the last: a source takes what comes behind it for nonsense."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from migpool.errors import PeerError
from migpool.flow.window import Grant
from migpool.migration.return_path_writer import ReturnPathWriter
from migpool.wire.returnpath import Failed, ReturnPathReader, Shut


@pytest.mark.parametrize("extended", [True, False])
def test_nothing_is_sent_behind_shut(extended: bool) -> None:
    reader = ReturnPathReader(extension=True)

    def put(buffers: Sequence[bytes]) -> None:
        reader.feed(b"".join(buffers))

    writer = ReturnPathWriter(put)
    writer.extended = extended
    writer.fail(PeerError("it broke"))
    writer.grant(Grant(0, 5))
    writer.fail(PeerError("and this, too"))
    said = list(reader.events())
    assert [type(message) for message in said] == ([Failed, Shut] if extended else [Shut])
