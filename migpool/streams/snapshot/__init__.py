"""A running machine into a file, and out of it again: the source and the destination of a migration without channels.

Without multifd channels everything stands in the main stream: pages in PART sections of RAM, the state of an iterable
device in PART sections of records and its config in the END section. So ``migpool inspect`` reads the file, and so does
whoever reads QEMU's stream.
"""
