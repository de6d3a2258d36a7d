"""Streams that lie still: looked into, kept in files, recorded, replayed."""
