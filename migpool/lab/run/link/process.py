"""The link of a run, as the process that makes the run has it.

Guarantee: when :meth:`RealLink.end` has returned, the keeper is gone, and with the two sides' processes the namespaces.
If this process dies, so do they all.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from migpool.device import Side
from migpool.errors import MigpoolError, UsageError
from migpool.lab.run.link.use import LinkUse
from migpool.scenario.schema import LinkTable

LIMIT: Final = 30.0
"""Seconds that the keeper may take to make the link, or to say how it was used."""
PATIENCE: Final = 5.0
"""Seconds that it may take to end before it is killed."""


class RealLink:
    """Two namespaces, joined by the link of a scenario.

    Arguments:
        seed: of what is drawn: which packets are lost, and how long others take.

    Raises:
        UsageError: this user may not make one, or the kernel cannot.

    Attributes:
        host: the destination's address.
        networks: a descriptor of each side's network namespace.
    """

    def __init__(self, link: LinkTable, seed: int) -> None:
        with ExitStack() as undo:
            self._control, theirs = socket.socketpair()
            undo.enter_context(self._control)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "migpool.lab.run.link.keeper", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            undo.callback(self._end_process)
            self._control.settimeout(LIMIT)
            self._control.sendall(json.dumps({"link": link.model_dump(mode="json"), "seed": seed}).encode() + b"\n")
            told, descriptors = self._heard()
            if "host" not in told or len(descriptors) != 2:
                raise UsageError(told.get("error") or "[link]: the process that makes the link ended: is memory short?")
            self.host: str = told["host"]
            self.networks: dict[Side, int] = {"source": descriptors[0], "destination": descriptors[1]}
            undo.pop_all()

    def use(self) -> LinkUse:
        """Take the link down, and say how it was used.

        Raises:
            MigpoolError: its process has died.
        """
        with suppress(OSError):
            self._control.sendall(b'{"end": true}\n')
        told, _ = self._heard()
        try:
            return LinkUse.model_validate(told["use"])
        except (KeyError, ValidationError):
            raise MigpoolError(f"[link]: the process that had the link {told.get('error', 'died')}") from None

    def end(self) -> None:
        """See that nothing is left."""
        for descriptor in self.networks.values():
            os.close(descriptor)
        self._control.close()
        self._end_process()

    def _end_process(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _heard(self) -> tuple[dict[str, Any], list[int]]:
        kept, descriptors = b"", list[int]()
        while not kept.endswith(b"\n"):
            try:
                data, more, _, _ = socket.recv_fds(self._control, 1 << 16, 2)
            except OSError:
                break
            descriptors += more
            if not data:
                break
            kept += data
        told: dict[str, Any] = json.loads(kept) if kept.endswith(b"\n") else {}
        return told, descriptors


@cache
def refusal() -> str:
    """Why this user cannot have a link on this machine, in a line; empty if there can be one."""
    try:
        RealLink(LinkTable(rate=1 << 20, delay=0.001), 0).end()
    except UsageError as error:
        return str(error)
    return ""
