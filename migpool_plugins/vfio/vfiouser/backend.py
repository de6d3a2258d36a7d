"""A vfio-user server's device as a backend.

How data moves, by measurement (docs/vfio-user.md): one read at a time of up to a MiB, since more of them at once
gain nothing; writes of 32 KiB, or of as much as the server announces, with several under way before the first is
answered. Every write is answered, and the first refusal fails the whole; only to a server that announces
``sticky_errors`` all but the last go without a reply, and the state is asked after the last.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import BackendError, Interruption, NoAnswer
from migpool_plugins.vfio.migration import (
    FEATURE_HEADER,
    MIG_DATA_SIZE,
    MIG_STATE,
    MIGRATION,
    Feature,
    FeatureFlag,
    Flags,
    MigrationState,
)
from migpool_plugins.vfio.vfiouser.connect import Connect
from migpool_plugins.vfio.vfiouser.connection import Connection, refusal
from migpool_plugins.vfio.vfiouser.engine import MOST_WRITTEN, READ_SIZE, SAFE_WRITE, UserEngine
from migpool_plugins.vfio.vfiouser.message import (
    DATA,
    PRECOPY_INFO,
    Capabilities,
    MessageError,
    UserCommand,
    parse_version,
    version,
)

SETTLING: Final = 1.0
"""Seconds that a server has to answer what was interrupted, before the connection is given up."""
OUTSTANDING: Final = 8
"""Writes that may wait for their answers at once."""


class VfioUserBackend:
    """One device of a vfio-user server.

    Arguments:
        connect: makes a new connection.
        server: what to call the server in an error and in ``note``.
        write_size: bytes a write; ``None``: what the server announces, or 32 KiB.
        outstanding: writes that may wait for their answers at once, where each is answered.
        flags: what the device can do, where that is known: the connection is then made at the first request.
        reason: asked after a failure; what it returns is raised instead of what the protocol's error number says.
        engines: how many parts with tags to read or write at once, each on a connection of its own; 0: none.

    Raises:
        BackendError: no connection, another protocol, or a device that cannot migrate.
    """

    def __init__(
        self,
        connect: Connect,
        server: str,
        *,
        write_size: int | None = None,
        outstanding: int = OUTSTANDING,
        flags: Flags | None = None,
        reason: Callable[[], DeviceError | None] | None = None,
        engines: int = 0,
    ) -> None:
        self.note = server
        self._connect = connect
        self._server = server
        self._asked_write_size = write_size
        self._outstanding = outstanding
        self._reason = reason
        self._interruption = Interruption()
        self._connection: Connection | None = None
        self._patience: float | None = None
        self._gone: str | None = None
        self._capabilities = Capabilities()
        self._knows_size = False
        self._engines = engines
        self.flags = flags or Flags(0)
        self.write_size = SAFE_WRITE
        if flags is not None:
            return
        try:
            self._session()
        except BaseException:
            self.close()
            raise

    def state(self) -> MigrationState:
        number, _ = self._get(Feature.MIG_DEVICE_STATE, MIG_STATE)
        try:
            return MigrationState(number)
        except ValueError:
            raise BackendError(f"the {self._server} says that its device is in state {number}, which is none") from None

    def set_state(self, target: MigrationState) -> None:
        """Bring the device to ``target``, and ask whether it is there: a server may say yes and change nothing."""
        self._go(target)
        state = self.state()
        if state is not target:
            raise BackendError(f"the {self._server} took {target.name}, but its device is in {state.name}")

    def _go(self, target: MigrationState) -> None:
        flags = FeatureFlag.SET | Feature.MIG_DEVICE_STATE
        payload = FEATURE_HEADER.pack(FEATURE_HEADER.size + MIG_STATE.size, flags) + MIG_STATE.pack(target, 0)
        self._ask(UserCommand.DEVICE_FEATURE, payload, "set-state", f"{target.name} was refused")

    def reset(self) -> None:
        self._ask(UserCommand.RESET, b"", "reset", "the reset was refused")

    def data_size(self) -> int | None:
        """Ask for the size of the state; ``None`` if the server does not know this question."""
        self._session()
        return self._get(Feature.MIG_DATA_SIZE, MIG_DATA_SIZE)[0] if self._knows_size else None

    def precopy_info(self) -> tuple[int, int] | None:
        """Ask what is left to pre-copy; ``None`` of a server that has not announced to know."""
        self._session()
        if not self._capabilities.precopy_info:
            return None
        initial, dirty = self._get(Feature.PRECOPY_INFO, PRECOPY_INFO)
        return initial, dirty

    def read(self, buffer: memoryview) -> int:
        """Read the next part of the state straight into ``buffer``, at most what was agreed on."""
        connection = self._session()
        try:
            return connection.ask_for_data(min(len(buffer), self._capabilities.max_transfer, READ_SIZE), buffer)
        except BackendError as error:
            raise self._explained(error) from None

    def write(self, data: memoryview) -> None:
        """Write a part of the state, cut as the server can take it; returns when the device has taken all of it."""
        connection = self._session()
        try:
            refused = self._write(connection, data)
        except BackendError as error:
            raise self._explained(error) from None
        if not refused:
            return
        what = "the write was refused"
        if self.write_size > max(SAFE_WRITE, self._capabilities.max_write):
            # A server that reads a body with one receive has left the rest of it in the connection.
            connection.abort()
            what = f"a write of {self.write_size} bytes was refused (the server may take less: set write_size to 32KiB)"
        raise self._explained(refusal(what, refused))

    def _write(self, connection: Connection, data: memoryview) -> int:
        """Send writes with a few answers outstanding; returns the first refusal's error number.

        Where errors are sticky only the last one is answered, and an error of the others shows in that answer.
        """
        sticky = self._capabilities.sticky_errors
        waiting: deque[int] = deque()
        refused = 0
        for begin in range(0, len(data), self.write_size):
            part = data[begin : begin + self.write_size]
            head = DATA.pack(DATA.size + len(part), len(part))
            ask = not sticky or begin + len(part) == len(data)
            number = connection.send(UserCommand.MIG_DATA_WRITE, head, "write", part, ask)
            if ask:
                waiting.append(number)
            if len(waiting) >= self._outstanding:
                refused = connection.answer(waiting.popleft(), "write")
                if refused:
                    break
        while waiting:
            try:
                answer = connection.answer(waiting.popleft(), "write")
                refused = refused or answer
            except BackendError:
                if not refused:
                    raise
                break  # What was refused says more than how the connection ended over it.
        if sticky and not refused and len(data) > self.write_size:
            self._still_resuming()
        return refused

    def _still_resuming(self) -> None:
        state = self.state()
        if state is not MigrationState.RESUMING:
            raise BackendError(f"a write without a reply failed: the device is in {state.name}")

    def poll_fd(self) -> int | None:
        """None: a server sends data only when it is asked for, so there is nothing to wait for before a read."""
        return None

    def _session(self) -> Connection:
        """Return the connection, or a new one where the last was lost: the device keeps its state meanwhile.

        A server that was not there for a new one is not looked for once more.
        """
        self._interruption.check()
        connection = self._connection
        if connection is not None and not connection.over and (not connection.owes or self._settled(connection)):
            return connection
        if self._gone is not None:
            raise NoAnswer(self._gone)
        again = connection is not None
        try:
            return self._new_session(again)
        except NoAnswer as error:
            self._interruption.check()
            hasty = self._patience is not None and error.errno == errno.ETIMEDOUT
            if again and not hasty:
                self._gone = str(error)
            raise

    def _settled(self, connection: Connection) -> bool:
        """Whether a connection whose last request was interrupted can be used again; else it is over.

        Raises:
            NoAnswer: not yet; nobody has the patience to wait for it.
        """
        try:
            if connection.settle(SETTLING if self._patience is None else self._patience):
                return True
        except NoAnswer:
            self._interruption.check()
            return False
        if self._patience is not None:
            raise NoAnswer(f"the {self._server} is busy with what was interrupted", errno.ETIMEDOUT)
        connection.abort()
        return False

    def _new_session(self, again: bool) -> Connection:
        if self._connection is not None:
            self._connection.close()
        connection = self._connect(self._interruption, again)
        with self._interruption.lock:
            self._connection = connection
        try:
            self._agree(connection, self._patience if again else None)
        except BackendError as error:
            connection.abort()
            raise self._explained(error) from None
        return connection

    @property
    def served_at_once(self) -> int:
        """How many parts with tags the server says that it serves at once."""
        return self._capabilities.parts

    def open_engine(self) -> UserEngine:
        """Make a connection for one engine.

        Raises:
            BackendError: none can be made, or the server knows no parts.
        """
        connection = self._connect(self._interruption, True)
        try:
            self._agree(connection)
        except BaseException:
            connection.close()
            raise
        return UserEngine(connection, self._capabilities)

    def explain(self, error: BackendError) -> DeviceError:
        """What to say of an engine's failure."""
        return self._explained(error)

    def _agree(self, connection: Connection, patience: float | None = None) -> None:
        """Exchange versions and capabilities, and ask what the device can do; each answer may take ``patience``."""
        if patience is not None:
            usual = connection.limited(patience)
            self._agree(connection)
            connection.limited(usual)
            return
        try:
            ours = version(Capabilities(max_transfer=READ_SIZE, parts=self._engines))
            refused = f"the {self._server} refused our version"
            came = connection.ask(UserCommand.VERSION, ours, "version", refused)
        except NoAnswer as error:
            if error.errno != errno.ETIMEDOUT:
                raise
            text = f"the {self._server} let us in, but {error}: it may be serving somebody else"
            raise NoAnswer(text, error.errno) from None
        try:
            self._capabilities = parse_version(came).can
        except MessageError as error:
            raise BackendError(f"the {self._server} does not speak vfio-user as we do: {error}") from None
        if self._engines and not self._capabilities.parts:
            raise BackendError(
                f"the {self._server} knows no parts with tags: leave engines out, or take a server that announces them"
            )
        most = self._asked_write_size or self._capabilities.max_write or SAFE_WRITE
        self.write_size = max(1, min(most, self._capabilities.max_transfer, MOST_WRITTEN))
        if self.write_size > SAFE_WRITE:
            connection.widen(self.write_size)
        try:
            self.flags = Flags(self._get(Feature.MIGRATION, MIGRATION)[0] & 7)
        except NoAnswer:
            raise
        except BackendError as error:
            text = f"the device of the {self._server} cannot migrate: {error}"
            raise BackendError(text, error.errno) from None
        if Flags.STOP_COPY not in self.flags:
            raise BackendError(f"the device of the {self._server} cannot migrate: it knows no STOP_COPY")
        flags = FeatureFlag.PROBE | FeatureFlag.GET | Feature.MIG_DATA_SIZE
        question = FEATURE_HEADER.pack(FEATURE_HEADER.size, flags)
        self._knows_size = True
        try:
            connection.ask(UserCommand.DEVICE_FEATURE, question, "probe", "the probe was refused")
        except BackendError:
            if connection.over:
                raise
            self._knows_size = False

    def _ask(self, what: UserCommand, payload: bytes, name: str, refused: str) -> bytes:
        connection = self._session()
        try:
            return connection.ask(what, payload, name, refused)
        except BackendError as error:
            raise self._explained(error) from None

    def _get(self, feature: Feature, form: Struct) -> tuple[int, ...]:
        payload = FEATURE_HEADER.pack(FEATURE_HEADER.size + form.size, FeatureFlag.GET | feature)
        name = f"get-{feature.name.lower().replace('_', '-')}"
        came = self._ask(UserCommand.DEVICE_FEATURE, payload, name, f"{name} was refused")
        if len(came) < FEATURE_HEADER.size + form.size:
            raise BackendError(f"the {self._server} answered {name} with {len(came)} bytes")
        return form.unpack_from(came, FEATURE_HEADER.size)

    def _explained(self, error: BackendError) -> DeviceError:
        """The error to raise: an abort or a close before all, then what the server's side knows, then ``error``."""
        self._interruption.check()
        if self._reason is None or error.errno == errno.ETIMEDOUT:
            return error
        reason = self._reason()
        # The device process may have ended while it was asked, or the abort may have come meanwhile.
        self._interruption.check()
        return reason or error

    def abort(self) -> None:
        """End any wait; the connection stays, if it was not in the middle of a message."""
        self._interruption.interrupt()

    def renew(self, patience: float | None = None) -> None:
        self._patience = patience
        self._interruption.take_back()

    def close(self) -> None:
        self._interruption.close(self._close_connection)

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
