"""Our stack without a tunnel: between a TUN device in a namespace and sockets of this one.

python -m tests.bench.netstack_alone NETNS DEVICE MTU ADDRESS PORT TARGET_PORT [offloads]

Makes DEVICE in the namespace of the file NETNS. What connects to ADDRESS:PORT through it is
connected to 127.0.0.1:TARGET_PORT here. Runs until it is ended or
the device is gone.
"""

from __future__ import annotations

import ipaddress
import os
import sys

from cext.engine.testing_tun import StackOnTun
from wantastic.config.model import DEFAULT_MEMORY_BYTES


def main(
    netns: str, device: str, mtu: str, address: str, port: str, target: str, *more: str
) -> None:
    space = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    packed = ipaddress.IPv4Address(address).packed
    # As much as the agent has where nothing else is configured.
    stack = StackOnTun(
        device, space, int(mtu), packed, DEFAULT_MEMORY_BYTES, offloads="offloads" in more
    )
    os.close(space)
    stack.forward(int(port), ("127.0.0.1", int(target), 0))
    stack.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
