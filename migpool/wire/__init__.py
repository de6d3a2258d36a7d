"""The bytes of a migration, without any input or output: events from bytes, and bytes from events.

Nothing here opens a socket, waits, looks at a clock or logs. Each file is one subject; import it by name
(``from migpool.wire import returnpath``). What peers may send is checked here, and the only error that bytes can cause
is :class:`migpool.errors.ProtocolError`.
"""
