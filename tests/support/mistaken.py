"""A device plug-in that does one thing wrong, as its options say; without options it does all right."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from migpool.device import Device, DeviceContext, DeviceError, Pending

ANNOUNCED: Final = "[migpool.devices]\nmistaken = mistaken_plugin:devices\n"
"""What a package with a copy of this, called ``mistaken-plugin``, announces."""
SIZE: Final = 100_000
KEPT: Final[list[Any]] = []
"""What is never given back."""


class Honest(Device):
    """A device with state that is saved while the machine runs, and after that."""

    idstr = "mistaken"
    iterable = True

    def __init__(self, number: int, memory: bytearray) -> None:
        self.instance_id = number
        self.memory = memory
        self.at = 0
        self.stopped = False
        self.aborted = False

    def save_setup(self) -> bytes:
        self.at = 0
        return b"set-up"

    def pending(self) -> Pending:
        left = len(self.memory) - self.at
        return Pending(stopcopy=left) if self.stopped else Pending(precopy=left // 2, stopcopy=left - left // 2)

    def iterate(self, buffer: memoryview) -> int:
        return self._give(buffer, len(self.memory) // 2)

    def quiesce(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def save_state(self, buffer: memoryview) -> int:
        return self._give(buffer, len(self.memory))

    def _give(self, buffer: memoryview, end: int) -> int:
        part = self.memory[self.at : min(end, self.at + len(buffer))]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def save_config(self) -> bytes:
        return len(self.memory).to_bytes(8, "big")

    def wake(self) -> None:
        self.aborted = False

    def resume(self) -> None:
        self.at, self.stopped = 0, False

    def load_setup(self, data: bytes) -> None:
        if data != b"set-up":
            raise DeviceError("this is no set-up of its own")

    def load_state(self, data: memoryview) -> None:
        if self.aborted or self.at + len(data) > len(self.memory):
            raise DeviceError("aborted, or there is no room for it")
        self.memory[self.at : self.at + len(data)] = data
        self.at += len(data)

    def load_config(self, data: bytes) -> None:
        if len(data) != 8 or not int.from_bytes(data, "big") == self.at == len(self.memory):
            raise DeviceError(f"{self.at} bytes have come")

    def start(self) -> None: ...

    def fingerprint(self) -> bytes | None:
        return hashlib.sha256(self.memory).digest()

    def verify(self) -> None: ...

    def check_version(self, version: int) -> None: ...

    def exact_config(self) -> bool:
        return False

    def needed(self) -> bool:
        return True

    def describe_config(self) -> None: ...

    def costs(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...


class OfItsOwn(BaseException):
    """What no ``except Exception`` sees."""

    def __str__(self) -> str:
        raise ValueError("it cannot even say what it is")


def _raises(error: Callable[[], BaseException], *_: object) -> None:
    raise error()


def _blocks(*_: object) -> None:
    threading.Event().wait()


def _spins(*_: object) -> None:
    while True:
        pass


def _thread(call: Callable[..., object], *given: object) -> object:
    threading.Thread(target=threading.Event().wait, name="left behind", daemon=True).start()
    return call(*given)


def _descriptor(call: Callable[..., object], *given: object) -> object:
    KEPT.append(os.pipe())
    return call(*given)


def _process(call: Callable[..., object], *given: object) -> object:
    KEPT.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
    return call(*given)


def _keeps(call: Callable[..., object], *given: object) -> object:
    KEPT.append(given[0])
    return call(*given)


RETURNED: Final[dict[str, object]] = {"none": None, "float": 1.5, "text": "x", "negative": -1, "too-much": 1 << 40}
RAISED: Final[dict[str, Callable[[], BaseException]]] = {
    "ValueError": lambda: ValueError("boom"),
    "StopIteration": lambda: StopIteration("boom"),
    "sys.exit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "OfItsOwn": OfItsOwn,
}
ENDS: Final[dict[str, Callable[..., object]]] = {
    "os._exit": lambda *_: os._exit(3),
    "aborts": lambda *_: os.abort(),
    "kills": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
}
HANGS: Final[dict[str, Callable[..., object]]] = {"blocks": _blocks, "spins": _spins}
LEAKS: Final[dict[str, Callable[..., object]]] = {"thread": _thread, "descriptor": _descriptor, "process": _process}


def devices(context: DeviceContext) -> list[Device]:
    """Devices that do one thing wrong. Options: method and mistake; or attribute and value."""
    option = {name: str(value) for name, value in context.options.items()}
    method, mistake = option.get("method", ""), option.get("mistake", "")
    if method == "function":
        _wrongly(mistake, lambda: None)()
    dice = random.Random(context.seed)
    made: list[Device] = []
    kind = type("Mistaken", (Honest,), {"__module__": __name__})
    if method and method != "function":
        setattr(kind, method, _method(mistake, getattr(Honest, method)))
    for number in range(context.count):
        memory = bytearray(dice.randbytes(SIZE)) if context.side == "source" else bytearray(SIZE)
        made.append(kind(number, memory))
        if "attribute" in option:
            setattr(made[-1], option["attribute"], context.options["value"])
    return made


def _method(mistake: str, right: Callable[..., object]) -> Callable[..., object]:
    def method(self: Device, *given: object) -> object:
        return _wrongly(mistake, partial(right, self))(*given)

    return method


def _wrongly(mistake: str, right: Callable[..., object]) -> Callable[..., object]:
    if mistake in RETURNED:
        return lambda *_: RETURNED[mistake]
    if mistake in RAISED:
        return partial(_raises, RAISED[mistake])
    if mistake == "keeps":
        return partial(_keeps, right)
    return {**ENDS, **HANGS}.get(mistake) or partial(LEAKS[mistake], right)
