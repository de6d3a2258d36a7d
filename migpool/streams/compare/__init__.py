"""Whether a machine that wrote one stream could load another: the machine, its memory, its devices' descriptions.

What a stream says of a destination is what that one sent: :mod:`~migpool.streams.compare.sides` opens both,
:mod:`~migpool.streams.compare.machines` compares what stands outside of the devices,
:mod:`~migpool.streams.compare.payloads` the few bytes of devices that a destination insists on, and
:mod:`migpool.vmsd.diff` the descriptions.
"""
