"""A device whose parts have tags, for tests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from migpool.device import Part, TaggedDevice

PIECE = 3 * 1024


class Tagged(TaggedDevice):
    """A device that gives its parts in an order of its own, with tags that say where they belong.

    Arguments:
        number: its name is made of it.
        state: at the source; ``None`` at the destination.
        engines: how many callers at once.
        tag_of: what tag the part with a number is given.
    """

    def __init__(
        self, number: int, state: bytes | None = None, engines: int = 3, tag_of: Callable[[int], int] = lambda at: at
    ) -> None:
        self.idstr = f"tagged-{number}"
        self.engines = engines
        self.state = state or b""
        self.left = list(range(-(-len(self.state) // PIECE)))
        random.Random(number).shuffle(self.left)
        self.tag_of = tag_of
        self.got: dict[int, bytes] = {}
        self.config: bytes | None = None
        self.order: list[str] = []
        self.running = True
        self.at_once = self.most = 0
        self.takes = 0.0
        self.lock = threading.Lock()
        self.before: Callable[[int], None] = lambda _: None
        self.aborted = threading.Event()

    def save_part(self, buffer: memoryview) -> Part | None:
        with self.lock:
            if not self.left:
                return None
            at = self.left.pop()
            self.enter()
        self.before(at)
        time.sleep(self.takes)
        piece = self.state[at * PIECE : (at + 1) * PIECE]
        buffer[: len(piece)] = piece
        with self.lock:
            self.at_once -= 1
        return Part(self.tag_of(at), len(piece))

    def enter(self) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)

    def load_part(self, tag: int, data: memoryview) -> None:
        with self.lock:
            self.enter()
        self.before(tag)
        time.sleep(self.takes)
        with self.lock:
            self.at_once -= 1
            self.got[tag] = bytes(data)
            self.order.append("part")

    def save_config(self) -> bytes:
        self.order.append("config")
        return b"config of " + self.idstr.encode()

    def load_config(self, data: bytes) -> None:
        self.order.append("config")
        self.config = data

    def resume(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def abort(self) -> None:
        self.aborted.set()

    def whole(self) -> bytes:
        return b"".join(part for _, part in sorted(self.got.items()))
