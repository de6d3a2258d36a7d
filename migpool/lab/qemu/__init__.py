"""A real QEMU's downtime, from the trace logs of both sides: spans, critical path and what-if as of our own runs.

What the events say was read off logs of QEMU 10.0 and 11.1; ``log.py`` lists those that are used.
"""
