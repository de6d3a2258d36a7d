"""Guest memory over loopback: migpool against QEMU's own multifd, in turns."""
