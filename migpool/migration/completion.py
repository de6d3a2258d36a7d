"""The end of a migration, as the source hears of it: whether the machine runs there, since when, and as it was sent.

Guarantees:

1. With the first byte of the stream's end, whether the machine moves is the destination's decision. The source takes it
   back only after the destination has said, or shown by ending the connection without RUNNING, that it does not run
   there.
2. Whatever else happens leaves the machine stopped here, and the error says so: never two run. The end of a connection
   that somebody else may have cut says nothing: see :attr:`~migpool.migration.return_path.ReturnPath.cut`.
3. A device's state is called verified only where both ends gave a fingerprint. A destination that keeps back the one
   that this end has too, has not confirmed what it runs.
4. The machine runs there at the earliest when everything has been sent, whatever the destination's clock says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from migpool.core.machine import Machine
from migpool.errors import PeerError, ProtocolError, VerificationError
from migpool.migration.report import boot_id, digest_of
from migpool.migration.return_path import RUNS_THERE, ReturnPath


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

    def running(self, send_end: Callable[[], object], refused: Callable[[], object]) -> tuple[int, str]:
        """Send the end of the stream, and wait until the machine runs at the destination.

        Arguments:
            send_end: does the former.
            refused: called if the destination has said that the machine does not run there, and will not.

        Returns:
            Since when, by this host's CLOCK_MONOTONIC in nanoseconds, and how that is known: see
            :attr:`~migpool.migration.report.SideReport.clock`.

        Raises:
            MigpoolError: why it does not, if ``refused`` was called; else whether it does is not known.
        """
        return_path = self._return_path
        try:
            send_end()
            if self._credited:
                return_path.wait("the machine to run at the destination", lambda: return_path.running is not None)
            else:
                return_path.wait("the destination's last word", lambda: return_path.shut == 0)
        except ProtocolError as error:
            raise PeerError(f"{error}; whether the machine runs there nobody can say") from None
        except Exception as error:
            if not self._runs_there(error):
                refused()
                raise
        running, heard = return_path.running, return_path.running_at or time.monotonic_ns()
        if running is not None and running.boot_id == boot_id() and self._sent <= running.nanoseconds <= heard:
            return running.nanoseconds, "monotonic"
        return max(self._sent, heard - self._round_trip // 2), "return-path"

    def _runs_there(self, error: Exception) -> bool:
        """Ask the destination to give up, by the end of the main channel; whether the machine runs there.

        It answers with RUNNING if it is too late for that, and refuses or ends the connection without it otherwise.

        Arguments:
            error: why it is asked.

        Raises:
            PeerError: it has not said.
        """
        self._end()
        runs = self._return_path.verdict(self._limit)
        if runs is None:
            when = "before its connection was cut" if self._return_path.cut else f"within {self._limit:g} s"
            raise PeerError(f"{error}; the destination has not said {when} whether the machine runs there") from None
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
