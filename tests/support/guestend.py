"""One end of a guest's migration as a process that kills itself: ``guestend.py SIDE BACKEND PATH KILL_AT``.

It prints each state that it enters, and ends by SIGKILL when it has recorded its KILL_AT-th wait; with 0 it lives on,
and prints how many waits there were.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from migpool.core.trace import Recorder, Tracer
from tests.support.guests import ends_for, run_end


class Fatal(Tracer):
    """Counts waits, and kills the process at one of them.

    Arguments:
        kill_at: at which; 0 for none.
    """

    def __init__(self, kill_at: int) -> None:
        super().__init__()
        self._kill_at = kill_at
        self._counting = threading.Lock()
        self.count = 0

    def recorder(self) -> Recorder:
        plain = super().recorder()

        def counted(span: bytes) -> None:
            plain(span)
            with self._counting:
                self.count += 1
                if self.count == self._kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    side, backend, path, kill_at = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    tracer = Fatal(kill_at)
    with ends_for(side, backend) as machine:
        report = run_end(side, machine, path, tracer=tracer, watch=lambda state: say(state.value))
    say(f"waits {tracer.count}")
    say(f"error {report.error}")


if __name__ == "__main__":
    main()
