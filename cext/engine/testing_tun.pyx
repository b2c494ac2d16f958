# SPDX-License-Identifier: Apache-2.0
"""The netstack and the relay between a TUN device and the host's sockets, without a tunnel.

What other userspace stacks do, for `make bench-netstack`; not part of the firmware. The
relay, the stack, their joining to the engine, the loop and the device are the product's;
in place of WireGuard and its UDP socket packets come from the device and go to it:

    turn  device -> a batch of packets -> the netport's deliver()
          -> timers, events, sockets, as in its pull() -> packets -> device

Without offloads a packet is one read and one write, as a tap is to slirp4netns and pasta.
With them the kernel hands out and takes super-packets, as it does in TUN mode: gso.h cuts
those that come, gro.h joins those that go.
"""

import os

from libc.errno cimport EAGAIN, EMSGSIZE
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from cext.engine.core cimport (
    OUT_TURN_FLUSHES, OUT_TURN_READS, core_create, core_destroy, core_memory_bytes, engine_core,
)
from cext.engine.engine cimport fill_endpoint
from cext.engine.gro cimport GRO_PACKETS_MAX, gro_batch, gro_coalesce, gro_vectors
from cext.engine.gso cimport gso, gso_begin, gso_packet_len, gso_write
from cext.engine.loop cimport TAG_INNER, TAG_RELAY
from cext.engine.netport cimport (
    netport_attach, netport_create, netport_destroy, netport_detach,
)
from cext.engine.relay cimport relay_events, relay_forward_tcp, relay_sockets
from cext.engine.relay_table cimport RELAY_NONE, relay
from cext.host.clock cimport clock_now_ns
from cext.host.features cimport HOST_ALL_FEATURES, HOST_TSO, HOST_USO, HOST_VNET_HDR
from cext.host.loop cimport LOOP_EVENTS_MAX, loop_event, loop_wait, loop_watch
from cext.host.thread cimport thread_prefer_latency
from cext.host.tun cimport iovec, tun_open, tun_read, tun_write
from cext.netstack.layout cimport NS_BATCH_MAX, address_from_v4, ns_packet
from cext.netstack.stack cimport ns_add_address, ns_next_packets, ns_poll, ns_poll_at
from cext.wire.endpoint cimport endpoint
from cext.wire.vnet cimport vnet_header

cdef enum:
    # Of every packet, from whom it came.
    PEER = 1


cdef struct line:
    engine_core *core
    relay *r
    uint8_t *area  # GRO_PACKETS_MAX places of `room` bytes
    uint32_t room
    bint gone  # the device


# -- device to stack --

cdef void hand_over(line *l, uint64_t now_ns) noexcept nogil:
    l.core.stack.deliver(l.core.stack.context, now_ns, &l.core.inbound.delivered)


cdef uint8_t *place(line *l, uint64_t now_ns, uint32_t length) noexcept nogil:
    """Room for the next packet of the batch, which is handed over if it is full."""
    cdef gro_batch *batch = &l.core.inbound.delivered
    cdef uint8_t *at
    if batch.packet_count == GRO_PACKETS_MAX:
        hand_over(l, now_ns)
    at = l.area + <size_t>batch.packet_count * l.room
    batch.packets[batch.packet_count].data = at
    batch.packets[batch.packet_count].length = <uint16_t>length
    batch.packets[batch.packet_count].peer = PEER
    batch.packet_count += 1
    return at


cdef bint nothing(line *l, int n) noexcept nogil:
    """Whether that was all for now: no packet is there, or no device any more."""
    l.gone |= n < 0 and n != -EAGAIN and n != -EMSGSIZE
    return n == -EAGAIN or l.gone


cdef bint read_plain(line *l, uint64_t now_ns) noexcept nogil:
    """Take one packet to where it is going to be read; whether there was one."""
    cdef gro_batch *batch = &l.core.inbound.delivered
    cdef vnet_header header
    cdef int n = tun_read(&l.core.tun, place(l, now_ns, 0), l.room, &header)
    if n <= 0:
        batch.packet_count -= 1
        return not nothing(l, n)
    batch.packets[batch.packet_count - 1].length = <uint16_t>n
    return True


cdef bint read_super(line *l, uint64_t now_ns) noexcept nogil:
    """The same with what may be a super-packet."""
    cdef uint8_t *packet = l.core.out.packet
    cdef vnet_header header
    cdef uint32_t i, size
    cdef gso cut
    cdef int n = tun_read(&l.core.tun, packet, l.core.out.packet_capacity, &header)
    if n <= 0:
        return not nothing(l, n)
    if <int>gso_begin(&cut, packet, <uint32_t>n, &header) >= 0:
        return True
    for i in range(cut.segments):
        size = gso_packet_len(&cut, i)
        if size <= l.room:
            gso_write(&cut, i, place(l, now_ns, size))
    return True


cdef void take_packets(line *l, uint64_t now_ns) noexcept nogil:
    cdef bint offloads = l.core.tun.features & HOST_VNET_HDR != 0
    cdef uint32_t _
    for _ in range(OUT_TURN_READS):
        if not (read_super(l, now_ns) if offloads else read_plain(l, now_ns)):
            break
    hand_over(l, now_ns)


# -- stack to device --

cdef uint64_t write_packets(line *l, const ns_packet *packets, uint32_t n) noexcept nogil:
    """Write what the stack made; how many bytes that was."""
    cdef gro_batch *batch = &l.core.inbound.delivered
    cdef iovec *vectors = l.core.inbound.vectors
    cdef vnet_header header
    cdef uint64_t done = 0
    cdef uint32_t i, count
    for i in range(n):
        batch.packets[i].data = packets[i].data
        batch.packets[i].length = <uint16_t>packets[i].len
        done += packets[i].len
    batch.packet_count = <uint16_t>n
    gro_coalesce(batch, l.core.tun.features & HOST_TSO != 0, l.core.tun.features & HOST_USO != 0)
    for i in range(batch.group_count):
        count = gro_vectors(batch, i, &header, vectors)
        # What the device does not take is lost, and is sent again as what any network lost.
        tun_write(&l.core.tun, &header, vectors, count)
    batch.packet_count = 0
    return done


cdef void send(line *l, uint64_t now_ns) noexcept nogil:
    """As much in a turn as the engine seals in one."""
    cdef ns_packet packets[NS_BATCH_MAX]
    cdef uint64_t left = <uint64_t>OUT_TURN_FLUSHES * l.core.out.area_size, done
    cdef uint32_t n
    while True:
        n = ns_next_packets(l.r.stack, now_ns, packets, NS_BATCH_MAX)
        if n == 0:
            return
        done = write_packets(l, packets, n)
        if done >= left:
            return
        left -= done


# -- the loop --

cdef uint32_t wait(line *l, bint busy) noexcept nogil:
    """Return a bit for each TAG_ that is ready."""
    cdef loop_event ready[LOOP_EVENTS_MAX]
    cdef int64_t timeout_ns = 0
    cdef uint64_t now_ns, at
    cdef uint32_t tags = 0
    cdef int i, n
    if not busy:
        at = ns_poll_at(l.r.stack)
        timeout_ns = -1
        if at != UINT64_MAX:
            now_ns = clock_now_ns()
            timeout_ns = <int64_t>(at - now_ns) if at > now_ns else 0
    n = loop_wait(l.core.loop, ready, timeout_ns)
    for i in range(n):
        tags |= <uint32_t>1 << ready[i].tag
    return tags


cdef bint turn(line *l, uint32_t tags) noexcept nogil:
    """Do what is ready; whether to come back without waiting."""
    cdef uint64_t now_ns = clock_now_ns()
    cdef bint more
    if tags >> TAG_INNER & 1:
        take_packets(l, now_ns)
    ns_poll(l.r.stack, now_ns)
    relay_events(l.r)
    more = relay_sockets(l.r, tags >> TAG_RELAY & 1)
    send(l, now_ns)
    relay_events(l.r)
    return more or l.r.ready_head != RELAY_NONE


cdef int failed(int error, what) except -1:
    if error < 0:
        raise OSError(-error, f"{what}: {os.strerror(-error)}")
    return 0


cdef class StackOnTun:
    """One stack at one IPv4 address behind a device of its own, on the caller's thread."""

    cdef line l

    def __cinit__(self, str name, int netns_fd, int mtu, bytes address, size_t memory,
                  bint offloads=False):
        cdef const uint8_t *v4 = address
        cdef uint8_t mapped[16]
        cdef size_t used
        cdef engine_core *core = core_create(memory, HOST_ALL_FEATURES, mtu)
        if core == NULL:
            raise MemoryError
        self.l.core = core
        self.l.room = <uint32_t>(mtu + 63) & ~<uint32_t>63
        self.l.area = <uint8_t *>malloc(<size_t>GRO_PACKETS_MAX * self.l.room)
        used = core_memory_bytes(core)
        self.l.r = netport_create(core, memory - used if memory > used else 0, mtu)
        if self.l.area == NULL or self.l.r == NULL:
            raise MemoryError
        address_from_v4(mapped, v4)
        ns_add_address(self.l.r.stack, mapped)
        failed(netport_attach(core, self.l.r), "sockets")
        failed(tun_open(&core.tun, name.encode(), mtu, netns_fd,
                        HOST_ALL_FEATURES if offloads else 0), "TUN")
        failed(loop_watch(core.loop, core.tun.fd, TAG_INNER, False), "TUN")

    def __dealloc__(self):
        if self.l.core != NULL:
            netport_detach(self.l.core)
            netport_destroy(self.l.r)
            core_destroy(self.l.core)
        free(self.l.area)

    def forward(self, uint16_t port, target):
        """What connects to a port of the address is connected to `target` of the host."""
        cdef endpoint to
        cdef uint32_t id = 0
        fill_endpoint(&to, target)
        failed(relay_forward_tcp(self.l.r, port, &to, &id), "forward")

    def run(self):
        """Work until the device is gone; no signal handler of Python's runs meanwhile."""
        cdef bint busy = False
        with nogil:
            thread_prefer_latency()
            while not self.l.gone:
                busy = turn(&self.l, wait(&self.l, busy))
