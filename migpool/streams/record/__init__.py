"""Recordings of migrations: made between a source and a destination, explained, and played into a destination.

A recording is a directory; :mod:`migpool.streams.record.index` says what is in it.
"""
