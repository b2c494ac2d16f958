"""TUN, UDP and poll: the only native room that makes system calls."""
