"""Checks that migrate made devices, the model at one end and a pool of one worker at the other."""

from __future__ import annotations

import hashlib
import random
from functools import partial

from migpool.conformance.devices import Subject as Devices
from migpool.conformance.devices import migrating
from migpool.conformance.models.subject import Subject
from migpool.device import Device, DeviceContext, DeviceError, Pending
from migpool.scenario.model_names import Model, parse_part

SIZE = 300_000
PARTNER = "pool:1"


class _Made(Device):
    idstr = "made"
    iterable = True

    def __init__(self, number: int, memory: bytearray) -> None:
        self.instance_id = number
        self._memory = memory
        self._at = 0

    def pending(self) -> Pending:
        return Pending(stopcopy=len(self._memory) - self._at)

    def save_state(self, buffer: memoryview) -> int:
        part = self._memory[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def save_config(self) -> bytes:
        return b"config"

    def resume(self) -> None:
        self._at = 0

    def load_state(self, data: memoryview) -> None:
        self._memory[self._at : self._at + len(data)] = data
        self._at += len(data)

    def load_config(self, data: bytes) -> None:
        if data != b"config" or self._at != len(self._memory):
            raise DeviceError(f"{self._at} of {len(self._memory)} bytes have come, and the config {data!r}")

    def fingerprint(self) -> bytes:
        return hashlib.sha256(self._memory).digest()


def _devices(context: DeviceContext) -> list[Device]:
    dice = random.Random(context.seed)
    return [
        _Made(number, bytearray(dice.randbytes(SIZE)) if context.side == "source" else bytearray(SIZE))
        for number in range(context.count)
    ]


MADE = partial(Devices, "made", _devices, {})


def migrates(subject: Subject) -> str:
    """Migrate five devices with room for two chunks each, a pool of one worker at the other end."""
    return migrating.tight_window(MADE(5), _model(subject))


def cancelled_migrations(subject: Subject) -> str:
    """Migrate, cancel at waits of the model's end, and migrate again after each."""
    return migrating.cancels(MADE(3), _model(subject), sides=(subject.side,))


def _model(subject: Subject) -> Model:
    partner = parse_part(PARTNER)
    ends = (subject.part, partner) if subject.side == "source" else (partner, subject.part)
    return Model(subject.name, *ends)
