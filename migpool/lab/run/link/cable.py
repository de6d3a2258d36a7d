"""Two network namespaces, and a cable between them with the kernel's traffic control at both ends.

The rate is a token bucket's (tbf). Delay, jitter and loss are netem's, behind the bucket, or the relay's in a third
namespace where the kernel has no netem. pyroute2 makes all of it: it speaks netlink itself, so neither iproute2 has to
be there nor its output to be read.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from migpool.errors import UsageError
from migpool.lab.run.link.namespaces import enter_network, new_network
from migpool.lab.run.link.relay import Relay
from migpool.scenario.schema import LinkTable
from migpool.units import KIB

try:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError
except ImportError:
    raise UsageError("[link]: a real link needs pyroute2: pip install 'migpool[link]'") from None

ADDRESSES: Final = ("198.18.0.1", "198.18.0.2")
"""The source's and the destination's: of the range that RFC 2544 keeps for measurements."""
INTERFACE: Final = "link"
_ENDS: Final = ("to-source", "to-target")
_LEAST_BURST: Final = 128 * KIB
"""Bytes: the largest packet that the kernel has yet to divide must fit, or it is divided here."""
_BURST: Final = 0.001
"""Seconds of the rate that may go at once: the kernel's timers are not finer under load."""
_ROOT, _INNER = 0x10000, 0x20000


class Cable:
    """The cable, from its making until the process ends. The calling thread is in the source's namespace then.

    Arguments:
        seed: of what is drawn.

    Raises:
        UsageError: this user may not, or the kernel cannot.

    Attributes:
        networks: descriptors of the source's and of the destination's namespace.
        relay: the one that must be served, if there is one.
    """

    def __init__(self, link: LinkTable, seed: int) -> None:
        self._link = link
        self.relay: Relay | None = None
        self.networks = (new_network(), new_network())
        disturbed = bool(link.delay or link.jitter or link.loss)
        netem = disturbed and self._has_netem()
        means = [*(["tbf"] if link.rate else ()), *(["netem"] if netem else ["a relay"] if disturbed else ())]
        self.by = ", ".join(["veth", *means])
        if disturbed and not netem:
            new_network()
            _quiet()
            with IPRoute() as here:
                for name, network in zip(_ENDS, self.networks, strict=True):
                    self._join(here, name, network)
                    index = here.link_lookup(ifname=name)[0]
                    here.link("set", index=index, state="up", **self._undivided())
            self.relay = Relay(_ENDS, delay=link.delay, jitter=link.jitter, loss=link.loss, seed=seed)
        else:
            with IPRoute() as here:
                _quiet()
                self._join(here, INTERFACE, self.networks[0])
        hardware = [self._end(end, netem=netem) for end in (0, 1)]
        for end in (0, 1):
            enter_network(self.networks[end])
            with IPRoute() as there:
                there.neigh(
                    "replace",
                    dst=ADDRESSES[1 - end],
                    lladdr=hardware[1 - end],
                    ifindex=there.link_lookup(ifname=INTERFACE)[0],
                    state="permanent",
                )
        enter_network(self.networks[0])

    @property
    def queue(self) -> int:
        """Bytes that may wait for the link at either end."""
        link = self._link
        if link.queue is not None:
            return link.queue
        # As a router is told to have it: what is under way in a round trip, and no less than a few packets.
        return max(512 * KIB, round((link.rate or 0) * 2 * link.delay))

    def dropped(self) -> int:
        """How many packets found the queues full."""
        total = 0
        for network in reversed(self.networks):  # and ends where it was
            enter_network(network)
            with IPRoute() as there:
                index = there.link_lookup(ifname=INTERFACE)[0]
                stats = [found.get_attr("TCA_STATS2") for found in there.get_qdiscs(index=index)]
                total += sum(one.get_attr("TCA_STATS_QUEUE")["drops"] for one in stats if one is not None)
        return total

    @staticmethod
    def counters() -> tuple[int, int]:
        """Bytes that went from the source, and came to it, as its interface counts them."""
        for line in Path("/proc/thread-self/net/dev").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == INTERFACE:
                numbers = rest.split()
                return int(numbers[8]), int(numbers[0])
        return 0, 0

    def _join(self, here: Any, name: str, network: int) -> None:
        """Lay a cable from here to the namespace."""
        peer = {"ifname": INTERFACE, "net_ns_fd": network, "mtu": self._link.mtu}
        here.link("add", ifname=name, kind="veth", mtu=self._link.mtu, peer=peer)

    def _end(self, end: int, *, netem: bool) -> str:
        """Set up one end; returns its hardware address."""
        link = self._link
        enter_network(self.networks[end])
        _quiet()
        with IPRoute() as there:
            there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")
            index = there.link_lookup(ifname=INTERFACE)[0]
            there.addr("add", index=index, address=ADDRESSES[end], prefixlen=24)
            if link.rate:
                burst = max(_LEAST_BURST, round(link.rate * _BURST))
                there.tc("add", "tbf", index, _ROOT, rate=link.rate, burst=burst, limit=self.queue + burst)
            if netem:
                self._disturb(there, index, self._undivided())
            there.link("set", index=index, state="up", **self._undivided())
            return str(there.get_links(index)[0].get_attr("IFLA_ADDRESS"))

    def _disturb(self, there: Any, index: int, undivided: dict[str, int]) -> None:
        link = self._link
        held = self.queue + round((link.rate or 0) * (link.delay + link.jitter))
        size = link.mtu if undivided else 16 * link.mtu
        arguments = {
            "delay": round(link.delay * 1e6),
            "jitter": round(link.jitter * 1e6),
            "loss": link.loss * 100,
            "limit": max(1000, held // size),
        }
        place = {"handle": _INNER, "parent": _ROOT | 1} if link.rate else {"handle": _ROOT}
        there.tc("add", "netem", index, **place, **arguments)

    def _undivided(self) -> dict[str, int]:
        """What keeps packets from being lost by the dozen: each is as large as the cable carries from the beginning."""
        return {"gso_max_segs": 1} if self._link.loss else {}

    def _has_netem(self) -> bool:
        with IPRoute() as here:
            index = here.link_lookup(ifname="lo")[0]
            try:
                here.tc("add", "netem", index, _ROOT, delay=1)
                here.tc("del", "netem", index, _ROOT)
            except NetlinkError:
                return False
        return True


def _quiet() -> None:
    """Nothing goes over the cable but what is measured: no IPv6 of this namespace looks for routers."""
    with suppress(OSError):
        for place in ("default", "all"):
            Path(f"/proc/sys/net/ipv6/conf/{place}/disable_ipv6").write_text("1", "ascii")
