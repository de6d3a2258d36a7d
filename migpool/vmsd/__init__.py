"""The state of a device by description: what its fields are, how they stand in a stream, and what has changed.

A description is declared in Python (:mod:`~migpool.vmsd.description`, with the kinds of
:mod:`~migpool.vmsd.fields`), or read from the JSON at a stream's end (:mod:`~migpool.vmsd.jsonform`). Nothing in here
knows a device's class: the plug-in ``vmsd`` makes devices of it.
"""
