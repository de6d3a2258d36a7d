"""What is in a recorded migration stream: read into a summary, without printing anything.

* :mod:`~migpool.streams.inspect.reading` opens a file or a pipe and walks it to its end, or to the first error.
* :mod:`~migpool.streams.inspect.summary` is what comes of it; :mod:`~migpool.streams.inspect.document` is that as JSON.
* :mod:`~migpool.streams.inspect.decoding` decodes the fields of single devices.

The walk takes constant memory for pages of RAM, whatever the size of the recording.
"""
