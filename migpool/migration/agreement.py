"""What both ends must agree on before any state crosses: the machine, what crosses where, and how long a chunk is."""

from __future__ import annotations

from dataclasses import dataclass

from migpool.errors import ProtocolError, UsageError
from migpool.units import count_of
from migpool.wire.configuration import Configuration
from migpool.wire.returnpath import CREDITS_CAPABILITY, DESCRIBED_CAPABILITY, LIVE_CAPABILITY, Welcome

_OURS = (CREDITS_CAPABILITY, DESCRIBED_CAPABILITY, LIVE_CAPABILITY)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one end takes for granted.

    Arguments:
        machine: its name.
        credited: whether the source offers credits.
        described: whether devices that are not iterable cross over the multifd channels.
        live: whether what devices give while they run does.
    """

    machine: str
    credited: bool
    described: bool
    live: bool

    def configuration(self, uuid: bytes) -> Configuration:
        """What a source says of it. ``uuid``: what its channels have said."""
        asked_for = zip(_OURS, (self.credited, self.described, self.live), strict=True)
        capabilities = tuple(name for name, wanted in asked_for if wanted)
        # A QEMU that was not asked to compare the uuid refuses one; the channels have said it.
        return Configuration(self.machine, capabilities=capabilities or None, uuid=uuid if capabilities else None)

    def check(self, item: Configuration, uuid: bytes | None, remedy: str) -> None:
        """See whether a source wants the same.

        Arguments:
            item: what it says.
            uuid: what its channels have said; ``None`` without channels.
            remedy: what to do if something crosses elsewhere.

        Raises:
            ProtocolError: it wants something else.
        """
        named = item.capabilities or ()
        if uuid is not None and item.uuid not in (None, uuid):
            right = "the uuid that the multifd channels said, found another: these are of two migrations"
            raise ProtocolError(item.offset, "configuration", right)
        if item.machine != self.machine:
            raise ProtocolError(item.offset, "configuration", f"the machine {self.machine!r}, found {item.machine!r}")
        for capability, what, expected in (
            (DESCRIBED_CAPABILITY, "devices", self.described),
            (LIVE_CAPABILITY, "what devices give while they run", self.live),
        ):
            if (capability in named) is not expected:
                here, there = ("multifd channels", "main channel")[:: 1 if expected else -1]
                right = f"{what} on the {here}, found that they are on the {there}: {remedy}"
                raise ProtocolError(item.offset, "configuration", right)
        if unknown := [name for name in named if name not in _OURS]:
            right = f"no capability {unknown[0]!r}: turn it off at the source"
            raise ProtocolError(item.offset, "configuration", right)


def agreed_chunk(welcome: Welcome, chunk: int, devices: int) -> int:
    """The longest chunk that both ends take, in bytes.

    Arguments:
        welcome: the destination's terms.
        chunk: the source's, in bytes.
        devices: how many the source has on its multifd channels.

    Raises:
        UsageError: the destination has another number of devices there.
    """
    if welcome.devices != devices:
        raise UsageError(
            f"the destination has {count_of(welcome.devices, 'device')} on its multifd channels, "
            f"this machine {devices}: start both ends with the same scenario"
        )
    return min(chunk, welcome.chunk)
