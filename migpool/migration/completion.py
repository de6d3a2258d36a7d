"""The end of a migration, as the source hears of it: whether the machine runs there, since when, and as it was sent.

Guarantees:

1. Everything has been sent: whether the machine moves is the destination's decision. The source takes it back only
   after the destination has said, or shown by ending the connection without RUNNING, that it does not run there.
2. A destination that says nothing, or what makes no sense, leaves the machine stopped here, and the error says so:
   never two run. Nor does an encrypted connection say anything by its end, if somebody else may have cut it.
3. A device's state is called verified only where both ends gave a fingerprint. A destination that keeps back the one
   that this end has too, has not confirmed what it runs.
4. The machine runs there at the earliest when everything has been sent, whatever the destination's clock says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from migpool.core.machine import Machine
from migpool.errors import Cancelled, PeerError, PeerGone, ProtocolError, TimeLimitExceeded, VerificationError
from migpool.migration.report import boot_id, digest_of
from migpool.migration.return_path import RUNS_THERE, ReturnPath

_LOOK: Final = "it stays stopped here; look there before you resume it"


class Completion:
    """Hears the destination out, once everything has been sent.

    Arguments:
        machine: stands still here.
        return_path: what the destination has said.
        end: ends the main channel, which asks the destination to give up; its answers still come.
        credited: whether the destination speaks this project's own messages; else its last word is all there is.
        limit: how long it may be silent, in seconds.
        sent: when everything but the stream's end had been sent, CLOCK_MONOTONIC in nanoseconds.
        round_trip: of a message to it and back, in nanoseconds.
    """

    def __init__(
        self,
        machine: Machine,
        return_path: ReturnPath,
        end: Callable[[], None],
        *,
        credited: bool,
        limit: float,
        sent: int,
        round_trip: int,
    ) -> None:
        self._machine = machine
        self._return_path = return_path
        self._end = end
        self._credited = credited
        self._limit = limit
        self._sent = sent
        self._round_trip = round_trip

    def running(self, doubt: Callable[[], object]) -> tuple[int, str]:
        """Wait until the machine runs at the destination.

        Arguments:
            doubt: called if nobody can say whether it does.

        Returns:
            Since when, by this host's CLOCK_MONOTONIC in nanoseconds, and how that is known: see
            :attr:`~migpool.migration.report.SideReport.clock`.

        Raises:
            PeerError: it does not run there, or that is not known.
            Cancelled: the migration was cancelled in time.
            TimeLimitExceeded: no answer came, and then the destination gave up.
        """
        return_path = self._return_path
        try:
            if self._credited:
                return_path.wait("the machine to run at the destination", lambda: return_path.running is not None)
            else:
                return_path.wait("the destination's last word", lambda: return_path.shut is not None)
        except (Cancelled, TimeLimitExceeded, PeerGone):
            if not self._ask_for_verdict(doubt):
                raise
        except ProtocolError as error:
            doubt()
            raise PeerError(f"{error}; whether the machine runs there nobody can say: {_LOOK}") from None
        running, heard = return_path.running, return_path.running_at or time.monotonic_ns()
        if running is not None and running.boot_id == boot_id() and self._sent <= running.nanoseconds <= heard:
            return running.nanoseconds, "monotonic"
        return max(self._sent, heard - self._round_trip // 2), "return-path"

    def _ask_for_verdict(self, doubt: Callable[[], object]) -> bool:
        """Ask the destination to give up, by the end of the main channel; whether the machine runs there.

        It answers with RUNNING if it is too late for that, and ends the connection without it otherwise.
        """
        self._end()
        runs = self._return_path.verdict(self._limit)
        if runs is None:
            doubt()
            when = "before its connection was cut" if self._return_path.cut else f"within {self._limit:g} s"
            raise PeerError(f"the destination has not said {when} whether the machine runs there: {_LOOK}")
        return runs

    def confirm(self, verified: dict[int, bool], omitted: Collection[int] = ()) -> None:
        """Hear the destination's last word, and compare every device's state with what was saved here.

        Arguments:
            verified: filled, by slot, with whether the state there is the one that was sent.
            omitted: the slots of which nothing was sent, since their devices needed nothing.

        Raises:
            PeerError: something went wrong there after the machine ran.
            VerificationError: a device's state is not what was sent, or there is nothing to compare it with.
        """
        return_path = self._return_path
        return_path.wait("the destination's last word", lambda: return_path.shut is not None)
        if return_path.failure:
            raise PeerError(f"{RUNS_THERE}: {return_path.failure}")
        if not self._credited:
            return
        kept_back = []
        for slot in self._machine:
            theirs = return_path.digests.get(slot.number, b"")
            ours = digest_of(slot)
            if any(ours) and any(theirs):
                verified[slot.number] = ours == theirs
            elif any(ours) and slot.number not in omitted:
                kept_back.append(slot.name)
        wrong = [slot.name for slot in self._machine if verified.get(slot.number) is False]
        if wrong:
            raise VerificationError(f"{RUNS_THERE} its state is not what was sent: {', '.join(wrong)}")
        if kept_back:
            text = f"{RUNS_THERE} it gives no fingerprint to compare with the one here: {', '.join(kept_back)}"
            raise VerificationError(text)
