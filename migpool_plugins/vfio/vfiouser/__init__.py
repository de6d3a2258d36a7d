"""vfio-user: a VFIO device behind a UNIX socket. The protocol without I/O, a client that is a backend, and a server.

``message.py`` knows the bytes and nothing else; both ends use it. ``connect.py``, ``connection.py``, ``engine.py`` and
``backend.py`` are the client, ``session.py`` the server's side of one connection. The server's part rests on the
standard library and this package alone.
"""
