"""The words for what the downtime went into, and which span of a trace they come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from migpool.core.effects import Wait

__all__ = ["KINDS", "MEANINGS", "SPAN_NAMES", "WORK_KINDS"]

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "device stop": "a device became quiet, or stopped, at the source",
        "device read": "a device filled a buffer with its state",
        "buffer": "a job waited for a buffer to read into",
        "scan": "pages of memory were looked through",
        "credit": "the destination had no room for a chunk, or the word that it has was on its way",
        "channel": "every multifd channel was sending another chunk",
        "send": "a chunk went into a channel's socket",
        "network": "something that had been sent had not arrived",
        "starved": "the next chunk had not come, and the trace does not say why",
        "device write": "a device took a chunk of its state",
        "sync": "a round of memory ended: every channel had to come to its SYNC",
        "lock": "another device held the big lock",
        "save config": "a device's config was saved, big lock held",
        "load config": "a device's config was loaded, big lock held",
        "queued": "a job, or a chunk in a socket, waited for a thread that worked for another device",
        "section": "a section of the main channel was written or read",
        "start": "a device woke, or started, at the destination",
        "cpu": "nothing was waited for: a thread computed, or had to be woken",
        "other": "the trace says nothing",
    }
)
"""What each kind means, in one line; the kinds in the order to show them."""

KINDS: tuple[str, ...] = tuple(MEANINGS)
"""Every kind of wait that a downtime is split into."""

WORK_KINDS: Mapping[Wait, str] = MappingProxyType(
    {
        Wait.QUIESCE: "device stop",
        Wait.STOP: "device stop",
        Wait.ACQUIRE: "buffer",
        Wait.READ: "device read",
        Wait.CREDIT: "credit",
        Wait.CHANNEL: "channel",
        Wait.SEND: "send",
        Wait.SECTION: "section",
        Wait.LOCK: "lock",
        Wait.SAVE_CONFIG: "save config",
        Wait.STARVED: "starved",
        Wait.WRITE: "device write",
        Wait.LOADED: "credit",
        Wait.LOAD_CONFIG: "load config",
        Wait.QUEUED: "queued",
        Wait.WAKE: "start",
        Wait.START: "start",
        Wait.RECEIVE: "network",
        Wait.SETUP: "section",
        Wait.JOIN: "cpu",
        Wait.SCAN: "scan",
        Wait.SYNC: "sync",
        Wait.HOLD: "cpu",
    }
)
"""The kind that a span's time belongs to when it is on the critical path for its own sake."""

SPAN_NAMES: Mapping[Wait, str] = MappingProxyType(
    {
        **WORK_KINDS,
        Wait.QUIESCE: "quiesce",
        Wait.WAKE: "wake",
        Wait.LOADED: "give room back",
        Wait.RECEIVE: "receive",
        Wait.SETUP: "set-up",
        Wait.JOIN: "join",
        Wait.HOLD: "hold config",
    }
)
"""What a span is called where all spans are shown."""
