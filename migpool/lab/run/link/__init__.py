"""A scenario's ``[link]`` in the kernel: network namespaces, veth, traffic control, and a relay without netem."""
