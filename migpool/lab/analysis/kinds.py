"""Every kind of wait, and everything that is said, drawn and computed by its kind: one record each, in one place.

The terminal, the page (which gets the records with its values), the trace, the critical path and the replay read them
here. A new kind is a member of :class:`migpool.core.effects.Wait`, its record here, and whoever records it. It needs
more only if the critical path or the replay must find out what was waited for: ``path`` and ``replay`` name the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from migpool.core.effects import Wait

LeftBy: TypeAlias = Literal["job", "migration", "channel", "migration or channel"]
"""Who leaves spans of a kind: a job, whatever thread it runs on; the migration's own thread; a channel. CHANNEL lies
inside SEND and is told from the job's spans."""

PathRule: TypeAlias = Literal["work", "starved", "credit", "send", "lock", "queued", "join", "sync", "order", "turn"]
"""How the critical path goes on from a span: "work" from its begin, the others as ``critical_path.py`` says."""

ReplayRule: TypeAlias = Literal[
    "own",
    "stop",
    "start",
    "read",
    "write",
    "config",
    "send",
    "credit",
    "starved",
    "loaded",
    "hold",
    "lock",
    "order",
    "turn",
    "pre-copied",
]
"""What a span becomes in the replay. "own" is work that takes as long as it took; so are a device's stop, start, reads,
writes and configs, by which name a resource makes them free. The others are in ``whatif/jobsteps.py``."""


@dataclass(frozen=True, slots=True)
class WaitKind:
    """One kind of wait.

    Arguments:
        wait: the kind of span; ``None`` for what the critical path finds where there is none.
        name: what it is called wherever it is shown.
        meaning: what was going on, in one line.
        mark: its letter on a terminal: a capital for work, else a small letter or a sign.
        style: the letter's colour, as rich names it; empty for none.
        colour: its colour on the page.
        waits: whether it is hatched there, since something was waited for.
        layer: what lies within other spans is drawn after them, the highest layer last.
        narrow: whether the page draws it as a narrow bar.
        counts_as: the kind to which its time on the critical path belongs; empty if it is one itself.
        left_by: who leaves it.
        keeps_thread: whether a job has the thread of a channel while it lasts.
        page_job: whether a job of the memory leaves it.
        path: the critical path's rule.
        replay: the replay's rule.
    """

    wait: Wait | None
    name: str
    meaning: str
    mark: str
    style: str
    colour: str
    waits: bool = False
    layer: int = 9
    narrow: bool = False
    counts_as: str = ""
    left_by: LeftBy = "job"
    keeps_thread: bool = True
    page_job: bool = False
    path: PathRule = "work"
    replay: ReplayRule = "own"

    @property
    def kind(self) -> str:
        """The kind to which its time on the critical path belongs."""
        return self.counts_as or self.name


# fmt: off
_ALL: tuple[WaitKind, ...] = (
    WaitKind(Wait.STOP, "device stop", "a device became quiet, or stopped, at the source",
             "X", "magenta", "#8c6bb1", left_by="migration", replay="stop"),
    WaitKind(Wait.QUIESCE, "quiesce", "a device became quiet towards others, before any was stopped",
             "Q", "magenta", "#b39ad1", counts_as="device stop", left_by="migration", replay="stop"),
    WaitKind(Wait.READ, "device read", "a device filled a buffer with its state",
             "R", "blue", "#2f81c7", replay="read"),
    WaitKind(Wait.ACQUIRE, "buffer", "a job waited for a buffer to read into",
             "b", "cyan", "#7fb2d9", layer=4),
    WaitKind(Wait.SCAN, "scan", "pages of memory were looked through",
             "P", "cyan", "#56b4c9", page_job=True),
    WaitKind(Wait.CREDIT, "credit", "the destination had no room for a chunk, or the word that it has was on its way",
             "c", "bright_yellow", "#d9a400", waits=True, layer=3, path="credit", replay="credit"),
    WaitKind(Wait.CHANNEL, "channel", "every multifd channel was sending another chunk",
             "h", "bright_magenta", "#c77fb8", waits=True, left_by="channel", page_job=True),
    WaitKind(Wait.SEND, "send", "a chunk went into a channel's socket",
             "S", "green", "#2f9e7f", layer=5, page_job=True, path="send", replay="send"),
    WaitKind(None, "network", "something that had been sent had not arrived",
             "n", "bright_black", "#7d9a8c", waits=True, layer=7),
    WaitKind(Wait.RECEIVE, "receive", "a chunk came out of a channel's socket",
             "r", "cyan", "#4aa3a1", counts_as="network", left_by="channel"),
    WaitKind(Wait.STARVED, "starved", "the next chunk had not come, and the trace does not say why",
             ".", "bright_black", "#b3bac2", waits=True, layer=1, keeps_thread=False, path="starved", replay="starved"),
    WaitKind(Wait.WRITE, "device write", "a device took a chunk of its state",
             "W", "yellow", "#e0762a", replay="write"),
    WaitKind(Wait.LOADED, "give room back", "the room of a chunk that had been loaded was given back",
             "g", "cyan", "#c9b458", counts_as="credit", replay="loaded"),
    WaitKind(Wait.SYNC, "sync", "a round of memory ended: every channel had to come to its SYNC",
             "s", "bright_green", "#9ac27f", waits=True, left_by="migration or channel", path="sync"),
    WaitKind(Wait.LOCK, "lock", "another device held the big lock",
             "l", "red", "#c4262e", waits=True, layer=6, path="lock", replay="lock"),
    WaitKind(Wait.SAVE_CONFIG, "save config", "a device's config was saved, under the lock that it needs",
             "C", "magenta", "#5e4fa2", replay="config"),
    WaitKind(Wait.LOAD_CONFIG, "load config", "a device's config was loaded, under the lock that it needs",
             "L", "magenta", "#a3408f", replay="config"),
    WaitKind(Wait.HOLD, "hold config", "a config was put aside until every iterable device had its state",
             "k", "cyan", "#b8a77a", counts_as="cpu", replay="hold"),
    WaitKind(Wait.OWN_LOCK, "own lock", "another call of the device held the device's own lock",
             "m", "red", "#d98880", waits=True, layer=6, replay="lock"),
    WaitKind(Wait.TURN, "turn", "another job of the same device was reading it",
             "t", "bright_blue", "#9fb8d9", waits=True, layer=3, path="turn", replay="turn"),
    WaitKind(Wait.ORDER, "order", "a device was loaded only after others, as it declares",
             "o", "bright_red", "#b5651d", waits=True, layer=2, keeps_thread=False, path="order", replay="order"),
    WaitKind(Wait.QUEUED, "queued", "a job, or a chunk in a socket, waited for a thread that worked for another device",
             "q", "bright_red", "#d4766c", waits=True, layer=2, keeps_thread=False, page_job=True, path="queued"),
    WaitKind(Wait.SECTION, "section", "a section of the main channel was written or read",
             "M", "green", "#6b8e23", left_by="migration"),
    WaitKind(Wait.SETUP, "set-up", "a device prepared to save or load, or iterated, while the machine ran",
             "U", "green", "#8fae55", counts_as="section", left_by="migration"),
    WaitKind(Wait.PRECOPIED, "pre-copied", "the destination still loaded what had been sent before the stop",
             "B", "yellow", "#a6761d", left_by="migration", replay="pre-copied"),
    WaitKind(Wait.START, "start", "a device woke, or started, at the destination",
             "^", "green", "#3f7f5f", left_by="migration", replay="start"),
    WaitKind(Wait.WAKE, "wake", "a device answered others again, before any was started",
             "v", "green", "#7aa892", counts_as="start", left_by="migration", replay="start"),
    WaitKind(Wait.JOIN, "join", "the migration waited for its jobs to end",
             " ", "", "#8b949e", waits=True, layer=0, narrow=True, counts_as="cpu", left_by="migration", path="join"),
    WaitKind(None, "cpu", "nothing was waited for: a thread computed, or had to be woken",
             "-", "bright_black", "#7d8590"),
    WaitKind(None, "other", "the trace says nothing",
             "?", "bright_black", "#a0a0a0"),
)
# fmt: on

WAITS: Mapping[Wait, WaitKind] = MappingProxyType({one.wait: one for one in _ALL if one.wait is not None})
"""The record of each kind of span."""

BY_NAME: Mapping[str, WaitKind] = MappingProxyType({one.name: one for one in _ALL})
"""All that can be shown, by name, in the order to show it."""

KINDS: tuple[str, ...] = tuple(one.name for one in _ALL if not one.counts_as)
"""Every kind that a downtime is split into along its critical path."""

JOB_WAITS = frozenset(wait for wait, one in WAITS.items() if one.left_by == "job")
"""What the jobs of ``migpool/core/jobs.py`` leave on whatever thread they run on."""

RECEIVER_WAITS = frozenset(wait for wait in JOB_WAITS if WAITS[wait].keeps_thread)
"""Those during which a job keeps a channel's thread: it has none while queued, and needs none while it starves."""

OWN_WAITS = frozenset(wait for wait, one in WAITS.items() if one.left_by == "migration")
"""What the migration's own thread alone leaves; SYNC is left by channels too."""

PAGE_JOB_WAITS = frozenset(wait for wait, one in WAITS.items() if one.page_job)
"""What a job of the memory leaves."""
