"""The states of a migration, as a table. Everything that decides a transition stands in this file.

The same table serves both sides: each only ever uses its own events.

::

    NONE --begin--> SETUP --connected--> ACTIVE --switch over--> SWITCHOVER --sent--> SENT --running--> RUNNING
                      |                    |                        |                 | |                 |  |
                      |                    |                        |        refused -+ |       confirmed |  |
                      |                    |                        |           v       |                 v  |
                      |                    |                        |        REFUSED    |         COMPLETED  |
                      +------ fail --------+---------- fail --------+---- fail -+       +--- fail, cancel ---+
                      +----- cancel -------+--------- cancel -------+-- cancel -+                |
                                                                                v                v
                                                                  FAILED, CANCELLED         UNCONFIRMED

SENT is the source's alone: everything has been sent, and whether the machine moves is the destination's decision. From
there on the machine runs at the source again only after the destination has refused it: whatever else goes wrong, be it
a mistake in this program, leaves it stopped. A destination goes from SWITCHOVER to RUNNING, which means that it runs
there. ``tests/model/handover.pml`` is a model of both ends that is searched exhaustively.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from threading import Lock

from migpool.errors import UsageError


class State(Enum):
    """Where a migration stands."""

    NONE = "none"
    SETUP = "setup"
    ACTIVE = "active"
    SWITCHOVER = "switchover"
    SENT = "sent"
    REFUSED = "refused"
    RUNNING = "running"
    COMPLETED = "completed"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(Enum):
    """What can happen to it."""

    BEGIN = "begin"
    CONNECTED = "connected"
    SWITCH_OVER = "switch over"
    SENT = "have sent everything"
    REFUSED = "be refused"
    RUNNING = "running"
    CONFIRMED = "confirmed"
    FAIL = "fail"
    CANCEL = "cancel"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.NONE: {Event.BEGIN: State.SETUP, Event.CANCEL: State.CANCELLED},
    State.SETUP: {Event.CONNECTED: State.ACTIVE, Event.FAIL: State.FAILED, Event.CANCEL: State.CANCELLED},
    State.ACTIVE: {Event.SWITCH_OVER: State.SWITCHOVER, Event.FAIL: State.FAILED, Event.CANCEL: State.CANCELLED},
    State.SWITCHOVER: {
        Event.SENT: State.SENT,
        Event.RUNNING: State.RUNNING,
        Event.FAIL: State.FAILED,
        Event.CANCEL: State.CANCELLED,
    },
    State.SENT: {
        Event.REFUSED: State.REFUSED,
        Event.RUNNING: State.RUNNING,
        Event.FAIL: State.UNCONFIRMED,
        Event.CANCEL: State.UNCONFIRMED,
    },
    State.REFUSED: {Event.FAIL: State.FAILED, Event.CANCEL: State.CANCELLED},
    State.RUNNING: {
        Event.CONFIRMED: State.COMPLETED,
        Event.FAIL: State.UNCONFIRMED,
        Event.CANCEL: State.UNCONFIRMED,
    },
    State.COMPLETED: {},
    State.UNCONFIRMED: {},
    State.FAILED: {},
    State.CANCELLED: {},
}

FINAL = frozenset(state for state, events in TRANSITIONS.items() if not events)
"""The states that a migration ends in."""


class StateMachine:
    """Where one migration stands.

    Arguments:
        watch: called with each new state, on the thread that brought it about.
    """

    def __init__(self, watch: Callable[[State], None] | None = None) -> None:
        self._lock = Lock()
        self._watch = watch
        self.state = State.NONE

    def happen(self, event: Event) -> State:
        """Move on, and return the new state.

        Raises:
            UsageError: the event cannot happen in this state.
        """
        with self._lock:
            after = TRANSITIONS[self.state].get(event)
            if after is None:
                raise UsageError(f"a migration that is {self.state.value} cannot {event.value}")
            self.state = after
        if self._watch is not None:
            self._watch(after)
        return after
