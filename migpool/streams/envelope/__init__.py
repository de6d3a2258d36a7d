"""What a stream is wrapped in: compression, libvirt's save image, an offset, a snapshot inside of a disk image.

* :mod:`~migpool.streams.envelope.opening` unwraps whatever it is, layer by layer.
* :mod:`~migpool.streams.envelope.source` is what comes of it: bytes in order.
* :mod:`~migpool.streams.envelope.foreign` names what is no stream at all.
"""
