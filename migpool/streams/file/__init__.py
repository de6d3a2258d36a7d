"""A machine as a file: receive a migration into a stream file of QEMU's format, and send such a file.

Devices stay opaque: the stream is understood up to the devices' states, which are passed on byte for byte. So this
works for every machine, also for one whose devices nobody here has described.
"""
