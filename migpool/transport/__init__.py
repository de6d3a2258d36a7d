"""Sockets: addresses, their options, and the group of multifd channels."""
