"""What the source asks the destination, to know how far away it is, and what its clock says when this one says what."""

from __future__ import annotations

import time
from functools import partial

from migpool.migration.report import Exchange
from migpool.migration.return_path import PING_VALUE, ReturnPath
from migpool.transport.main_channel import MainChannel
from migpool.wire.commands import open_return_path, ping


class Pings:
    """Sends PINGs, and waits for their answers.

    Arguments:
        main: where they are sent.
        return_path: where the answers come.

    Attributes:
        round_trip: how long the first answer took, in nanoseconds.
    """

    def __init__(self, main: MainChannel, return_path: ReturnPath) -> None:
        self._main = main
        self._return_path = return_path
        self._asked: dict[int, int] = {}
        self.round_trip = 0

    def greet(self) -> None:
        """Have the destination open the return path, and hear its first answer."""
        asked = self._asked[PING_VALUE] = time.monotonic_ns()
        self._main.write([open_return_path(), ping(PING_VALUE)])
        heard = self._return_path.heard
        self._return_path.wait("the first answer", lambda: PING_VALUE in heard)
        self.round_trip = heard[PING_VALUE] - asked

    def relate_clocks(self, count: int) -> None:
        """Ask ``count`` times more, one after the other: the quickest answer says most."""
        for value in range(PING_VALUE + 1, PING_VALUE + 1 + count):
            self._return_path.expect_pong(value)
            self._asked[value] = time.monotonic_ns()
            self._main.write(ping(value))
            self._return_path.wait("an answer", partial(self._return_path.heard.__contains__, value))

    def exchanges(self) -> list[Exchange]:
        """What was asked and answered."""
        heard = self._return_path.heard
        return [Exchange(value, asked, heard[value]) for value, asked in self._asked.items() if value in heard]
