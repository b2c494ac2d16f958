# SPDX-License-Identifier: Apache-2.0
"""The relay as a fuzz target: two of them, a network between, applications on real sockets.

    application A -- socket pair -- relay 0 ~~ network ~~ relay 1 -- TCP, loopback -- B
    application C -- UDP, loopback -- association of relay 0 ~~ UDP forward of 1 -- D

An input is four bytes of seed and steps of four bytes: a turn of a relay with some of its
packets, time, what an application writes, reads, ends or breaks, what the interpreter asks
for, what the network does to a packet, a datagram of a SOCKS client.

The model of a stream is its writer's name and how far it wrote. Byte 0 names the stream,
so that a reader knows whose it is; every other byte follows from name and place. Held
throughout: what is read was written, in order, by one writer that nobody else reads; the
invariants of both stacks. In the end the network loses nothing, everybody writes no more
and reads on: a connection that nothing broke ends in order with all of its bytes, and no
flow, descriptor or block is left.

Time and randomness are arguments. The loopback delivers within the system call, so an
input has the same run each time.
"""

from libc.errno cimport EAGAIN, ENOENT
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from cext.base.endian cimport store_be16
from cext.engine.core cimport engine_core
from cext.engine.relay cimport (
    relay_admit, relay_close, relay_dial, relay_dialled, relay_events, relay_forward_tcp,
    relay_sockets, relay_splice, relay_tcp_data, relay_tcp_parts,
)
from cext.engine.relay_table cimport (
    RELAY_ACCEPTING, RELAY_CONNECTING, RELAY_DIALLING, RELAY_TCP, body_init, relay, relay_body,
    relay_create, relay_destroy,
)
from cext.engine.relay_udp cimport (
    relay_associate, relay_datagram, relay_forward_udp, relay_learn_name,
)
from cext.host.stream cimport (
    datagram_bind, datagram_port, datagram_receive, datagram_send, stream_close, stream_read,
    stream_reset, stream_send, stream_shutdown,
)
from cext.host.tun cimport iovec
from cext.netstack.layout cimport (
    NS_BATCH_MAX, address_from_v4, flow_tuple, ns_datagram, ns_host, ns_limits, ns_packet, ns_part,
)
from cext.netstack.stack cimport (
    ns_add_address, ns_create, ns_default_limits, ns_destroy, ns_input, ns_input_end,
    ns_next_packets, ns_poll, ns_poll_at,
)
from cext.netstack.testing cimport splitmix, stack_check
from cext.wire.endpoint cimport WT_AF_INET, endpoint


cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_UNIX
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_REUSEADDR
    struct sockaddr:
        pass
    int setsockopt(int fd, int level, int name, const void *value, unsigned int length)
    int bind(int fd, const sockaddr *address, unsigned int length)
    int socket(int domain, int kind, int protocol)
    int socketpair(int domain, int kind, int protocol, int *fds)
    int listen(int fd, int backlog)
    int accept4(int fd, sockaddr *address, unsigned int *size, int flags)

cdef enum:
    STEP = 4
    STEPS_MAX = 300
    CONNECTIONS = 4
    STREAM_MAX = 1 << 20
    WIRE_SLOTS = 256
    WIRE_BYTES = 1600
    SETTLE_ROUNDS = 6000
    BACKLOG = 16
    HEAD_BYTES = 10
    TCP_PORT = 80
    UDP_PORT = 5353
    UNKNOWN = 0xff
    # A SYN is given up after a minute, an idle connection after 20.
    HANDSHAKE_NS = 20000000000
    SILENT_NS = 500000000000

cdef struct wire_slot:
    uint32_t length
    uint8_t data[WIRE_BYTES]

cdef struct half:
    relay *r
    engine_core core  # only its ring of events is used, and nobody reads it
    uint64_t random_state
    uint32_t slots  # packets on their way to the other half
    wire_slot wire[WIRE_SLOTS]

cdef struct end:
    int fd  # -1: not open, or gone
    uint32_t written
    uint32_t read
    uint32_t limit  # what of it passes
    uint8_t whose  # the stream it reads; UNKNOWN before byte 0
    bint shut
    bint ended  # read to the end

cdef struct connection:
    uint32_t id
    bint dialled
    bint spliced

cdef struct world:
    half halves[2]
    uint64_t now_ns
    int listener
    endpoint target  # where it listens
    connection connections[CONNECTIONS]
    uint32_t dials
    # The near ones by connection, then the far ones in the order of accept().
    end ends[2 * CONNECTIONS]
    uint32_t accepted
    uint8_t readers[2 * CONNECTIONS]  # of each stream: who reads it, UNKNOWN before
    bint unbroken  # nothing was reset, closed early, damaged or kept waiting too long
    uint64_t silent_ns  # since the network was whole for a moment
    uint64_t handshake_ns  # that somebody waits to be connected
    int client
    int server
    endpoint association
    uint32_t association_id


cdef inline void must(bint condition) noexcept nogil:
    if not condition:
        abort()


cdef inline uint32_t passing(const end *e) noexcept nogil:
    return min(e.written, e.limit)


cdef inline uint8_t byte_of(uint32_t stream, uint32_t at) noexcept nogil:
    """Byte 0 is the name; the rest differs by name and place."""
    return <uint8_t>stream if at == 0 else <uint8_t>(at * 31 + (at >> 8) * 7 + stream * 101)


# -- the relays and the network --

cdef void fill_random(void *context, void *out, uint32_t length) noexcept nogil:
    cdef half *h = <half *>context
    cdef uint8_t *at = <uint8_t *>out
    cdef uint32_t i
    for i in range(length):
        at[i] = <uint8_t>splitmix(&h.random_state)


cdef int admit(void *context, const flow_tuple *tuple, uint32_t protocol,
               uint32_t peer) noexcept nogil:
    return relay_admit((<half *>context).r, tuple, protocol, peer)


cdef uint32_t tcp_data(void *context, uint32_t handle, uint64_t user, const uint8_t *data,
                       uint32_t length) noexcept nogil:
    return relay_tcp_data((<half *>context).r, handle, user, data, length)


cdef uint32_t tcp_parts(void *context, uint32_t handle, uint64_t user, const ns_part *parts,
                        uint32_t count) noexcept nogil:
    return relay_tcp_parts((<half *>context).r, handle, user, parts, count)


cdef void datagram_in(void *context, uint32_t handle, uint64_t user,
                      const ns_datagram *d) noexcept nogil:
    relay_datagram((<half *>context).r, handle, user, d)


cdef void half_open(half *h, uint8_t number, uint64_t now_ns) noexcept nogil:
    cdef ns_limits limits
    cdef ns_host host
    cdef uint8_t v4[4]
    cdef uint8_t address[16]
    ns_default_limits(&limits, 1 << 24, 1420)
    limits.tcp_flows = 16
    limits.udp_flows = 8
    limits.time_waits = 8
    limits.syn_requests = 16
    limits.user_timeout_s = 0
    h.core.events.wake = -1
    h.r = relay_create(&limits, &h.core.events)
    must(h.r != NULL)
    memset(&host, 0, sizeof(host))
    host.context = h
    host.random = fill_random
    host.admit = admit
    host.tcp_data = tcp_data
    host.tcp_parts = tcp_parts
    host.datagram = datagram_in
    h.r.stack = ns_create(&limits, &host, now_ns)
    must(h.r.stack != NULL)
    v4[0], v4[1], v4[2], v4[3] = 10, 9, 0, number
    address_from_v4(address, v4)
    ns_add_address(h.r.stack, address)


cdef void half_close(half *h) noexcept nogil:
    ns_destroy(h.r.stack)
    relay_destroy(h.r)


cdef void take_wire(half *h, uint32_t i) noexcept nogil:
    h.slots -= 1
    memmove(&h.wire[i], &h.wire[i + 1], (h.slots - i) * sizeof(wire_slot))


cdef void collect(world *w, half *h) noexcept nogil:
    """What the stack sends; beyond what the network holds it drops."""
    cdef ns_packet packets[NS_BATCH_MAX]
    cdef uint32_t i, n
    while True:
        n = ns_next_packets(h.r.stack, w.now_ns, packets, NS_BATCH_MAX)
        if n == 0:
            return
        for i in range(n):
            if h.slots < WIRE_SLOTS and packets[i].len <= WIRE_BYTES:
                h.wire[h.slots].length = packets[i].len
                memcpy(h.wire[h.slots].data, packets[i].data, packets[i].len)
                h.slots += 1


cdef bint turn(world *w, uint32_t which, uint32_t most, uint32_t lost) noexcept nogil:
    """Give a relay a batch, then let it do what pull() of the netport does. Whether it, or
    the network, has work left. Bits of `lost` name packets of the batch that are."""
    cdef half *h = &w.halves[which]
    cdef half *other = &w.halves[1 - which]
    cdef uint8_t *kept[WIRE_SLOTS]
    cdef uint32_t i, n = min(most, other.slots)
    cdef bint more
    # Each in a place of exactly its size, and all of them until the batch ends.
    for i in range(n):
        kept[i] = <uint8_t *>malloc(other.wire[i].length)
        must(kept[i] != NULL)
        memcpy(kept[i], other.wire[i].data, other.wire[i].length)
        if i >= 32 or not lost >> i & 1:
            ns_input(h.r.stack, w.now_ns, kept[i], other.wire[i].length, 1)
    ns_input_end(h.r.stack)
    for i in range(n):
        free(kept[i])
    other.slots -= n
    memmove(&other.wire[0], &other.wire[n], other.slots * sizeof(wire_slot))
    ns_poll(h.r.stack, w.now_ns)
    relay_events(h.r)
    more = relay_sockets(h.r, True)
    collect(w, h)
    relay_events(h.r)
    must(stack_check(h.r.stack) == 0)
    return more or n != 0 or h.slots != 0 or other.slots != 0


cdef void network(world *w, half *h, const uint8_t *step) noexcept nogil:
    """Lose, repeat, delay or damage a packet."""
    cdef uint32_t i, what = step[3] & 3
    cdef wire_slot held
    if h.slots == 0:
        return
    i = step[1] % h.slots
    # An old SYN may open a connection that nobody asked for.
    if what and h.wire[i].data[9] == 6 and h.wire[i].data[33] & 2:
        w.unbroken = False
    if what == 0:
        take_wire(h, i)
    elif what == 1 and h.slots < WIRE_SLOTS:
        h.wire[h.slots] = h.wire[i]
        h.slots += 1
    elif what == 2:
        held = h.wire[i]
        take_wire(h, i)
        h.wire[h.slots] = held
        h.slots += 1
    else:
        # The checksum tells; ICMP about it may break the connection.
        w.unbroken = False
        h.wire[i].data[step[2] % h.wire[i].length] ^= <uint8_t>(1 << (step[3] >> 5))


# -- applications --

cdef void end_write(world *w, uint32_t which, uint32_t length) noexcept nogil:
    cdef end *e = &w.ends[which]
    cdef uint8_t data[4096]
    cdef uint32_t i, part
    cdef int n
    while length and e.fd >= 0 and not e.shut and e.written < STREAM_MAX:
        part = min(length, <uint32_t>sizeof(data))
        for i in range(part):
            data[i] = byte_of(which, e.written + i)
        n = stream_send(e.fd, data, part)
        if n <= 0:
            return
        e.written += <uint32_t>n
        length -= <uint32_t>n


cdef bint end_read(world *w, uint32_t which, uint32_t length) noexcept nogil:
    """Whether there was something."""
    cdef end *e = &w.ends[which]
    cdef uint8_t data[8192]
    cdef iovec part
    cdef int n, i
    cdef bint any_byte = False
    while length and e.fd >= 0 and not e.ended:
        part.iov_base = data
        part.iov_len = min(length, <uint32_t>sizeof(data))
        n = stream_read(e.fd, &part, 1)
        if n == -EAGAIN:
            break
        if n < 0:
            must(not w.unbroken)
            stream_close(e.fd)
            e.fd = -1
            break
        any_byte = True
        if n == 0:
            e.ended = True
            break
        for i in range(n):
            if e.read == 0:
                must(data[i] < 2 * CONNECTIONS and w.readers[data[i]] == UNKNOWN)
                # Near reads far and far reads near.
                must((data[i] < CONNECTIONS) != (which < CONNECTIONS))
                e.whose = data[i]
                must(w.ends[e.whose].whose in (UNKNOWN, which))
                w.readers[data[i]] = <uint8_t>which
            must(data[i] == byte_of(e.whose, e.read))
            e.read += 1
        must(e.read <= passing(&w.ends[e.whose]))
        length -= <uint32_t>n
    return any_byte


cdef void end_shut(end *e) noexcept nogil:
    if e.fd >= 0 and not e.shut:
        e.shut = True
        stream_shutdown(e.fd)


cdef void end_break(world *w, end *e, bint gently) noexcept nogil:
    if e.fd < 0:
        return
    w.unbroken = False
    if gently:
        stream_close(e.fd)
    else:
        stream_reset(e.fd)
    e.fd = -1


cdef void dial(world *w, uint32_t to_port) noexcept nogil:
    cdef endpoint to
    if w.dials == CONNECTIONS:
        return
    memset(&to, 0, sizeof(to))
    to.family = WT_AF_INET
    to.address[0], to.address[1], to.address[2], to.address[3] = 10, 9, 0, 2
    to.port = <uint16_t>to_port
    if relay_dial(w.halves[0].r, &to, &w.connections[w.dials].id) == 0:
        w.dials += 1


cdef void hear(world *w, uint32_t early_len, bint one_request) noexcept nogil:
    """Splice every dial that ended well with a socket pair. `one_request`: as the HTTP proxy
    does, with so long a body that what is written behind it shows."""
    cdef relay *r = w.halves[0].r
    cdef uint8_t *early = NULL
    cdef uint32_t id, i, k, head_len = 0
    cdef int error
    cdef int fds[2]
    cdef relay_body body
    while relay_dialled(r, &id, &error):
        for i in range(w.dials):
            if w.connections[i].id == id and not w.connections[i].dialled:
                break
        else:
            continue
        w.connections[i].dialled = True
        if error:
            w.unbroken = False
            continue
        if early_len & 1 and early_len > 200:
            must(relay_splice(r, id, -1, NULL, 0, NULL, 0) < 0)
            must(relay_close(r, id) == -ENOENT)
            w.unbroken = False
            continue
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0)
        if early_len:
            early = <uint8_t *>malloc(early_len)
            must(early != NULL)
            for k in range(early_len):
                early[k] = byte_of(i, k)
        if one_request:
            head_len = min(early_len, <uint32_t>HEAD_BYTES)
            body_init(&body, False, <uint64_t>early_len << 7)
            w.ends[i].limit = head_len + (early_len << 7)
        if relay_splice(r, id, fds[1], early, early_len, &body if one_request else NULL,
                        head_len) != 0:
            # It was reset before.
            free(early)
            stream_close(fds[0])
            stream_close(fds[1])
            continue
        w.connections[i].spliced = True
        w.ends[i].fd = fds[0]
        w.ends[i].written = early_len


cdef bint take_accepted(world *w) noexcept nogil:
    cdef int fd = accept4(w.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        return False
    if w.accepted == CONNECTIONS:
        must(not w.unbroken)
        stream_reset(fd)
        return True
    w.ends[CONNECTIONS + w.accepted].fd = fd
    w.accepted += 1
    return True


# -- datagrams --

cdef void datagram(world *w, const uint8_t *step, const uint8_t *rest, size_t size) noexcept nogil:
    """A datagram of the SOCKS client: a good header, or the bytes that follow."""
    cdef uint8_t data[300]
    cdef uint32_t length
    cdef endpoint source, named
    memset(data, 0, sizeof(data))
    if step[1] & 1:
        length = <uint32_t>min(size, sizeof(data))
        memcpy(data, rest, length)
        if step[1] & 2:
            data[0] = data[1] = data[2] = 0
            data[3] = step[3] % 5
    else:
        data[3] = 1
        data[4], data[5], data[6], data[7] = 10, 9, 0, step[1] >> 6
        store_be16(data + 8, UDP_PORT)
        length = 10 + step[2]
    datagram_send(w.client, &w.association, data, length)
    if step[1] & 4:
        # The name that the client may have asked for means something, or nothing.
        # They mean it for ever: the relay looks at the host's clock.
        memset(&named, 0, sizeof(named))
        named.family = WT_AF_INET
        named.address[0], named.address[1], named.address[3] = 10, 9, 2
        relay_learn_name(w.halves[0].r, rest, <uint8_t>min(size, <size_t>step[2]),
                         &named if step[1] & 8 else NULL, UINT64_MAX)
    if datagram_receive(w.server, &source, data, sizeof(data)) > 0:
        datagram_send(w.server, &source, data, step[2])
    datagram_receive(w.client, &source, data, sizeof(data))


# -- a run --

cdef uint64_t due_ns(world *w) noexcept nogil:
    cdef uint64_t at = ns_poll_at(w.halves[0].r.stack)
    cdef uint64_t other = ns_poll_at(w.halves[1].r.stack)
    at = min(at, other)
    return max(at, w.now_ns)


cdef bint handshaking(world *w) noexcept nogil:
    cdef relay *r
    cdef uint32_t i, k
    for k in range(2):
        r = w.halves[k].r
        for i in range(r.count):
            if r.flows[i].kind == RELAY_TCP and r.flows[i].state in (
                    RELAY_DIALLING, RELAY_CONNECTING, RELAY_ACCEPTING):
                return True
    return False


cdef void advance(world *w, uint64_t to_ns) noexcept nogil:
    cdef uint64_t passed = to_ns - w.now_ns
    w.now_ns = to_ns
    w.silent_ns += passed
    w.handshake_ns = w.handshake_ns + passed if handshaking(w) else 0
    if w.silent_ns > <uint64_t>SILENT_NS or w.handshake_ns > <uint64_t>HANDSHAKE_NS:
        w.unbroken = False


cdef void begin(world *w, const uint8_t *seed) noexcept nogil:
    cdef endpoint local, client
    cdef uint32_t i, id = 0
    cdef uint16_t family
    cdef uint8_t address[16]
    cdef int port, one = 1
    w.now_ns = 1000000000000000u
    for i in range(2):
        w.halves[i].random_state = <uint64_t>seed[i] << 8 | i
        half_open(&w.halves[i], <uint8_t>(1 + i), w.now_ns)
    memset(w.readers, UNKNOWN, sizeof(w.readers))
    for i in range(2 * CONNECTIONS):
        w.ends[i].fd = -1
        w.ends[i].whose = UNKNOWN
        w.ends[i].limit = 0xffffffffu
    w.unbroken = True
    memset(&local, 0, sizeof(local))
    local.family = WT_AF_INET
    local.address[0], local.address[3] = 127, 1
    w.target = local
    w.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    # What earlier runs left in TIME_WAIT may have every port.
    must(setsockopt(w.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0)
    memset(address, 0, sizeof(address))
    family = AF_INET
    memcpy(address, &family, sizeof(family))
    address[4], address[7] = 127, 1
    must(bind(w.listener, <sockaddr *>address, sizeof(address)) == 0)
    must(listen(w.listener, BACKLOG) == 0)
    port = datagram_port(w.listener)
    must(port > 0)
    w.target.port = <uint16_t>port
    must(relay_forward_tcp(w.halves[1].r, TCP_PORT, &w.target, &id) == 0)
    w.client = datagram_bind(&local)
    w.server = datagram_bind(&local)
    must(w.client >= 0 and w.server >= 0)
    client = local
    client.port = <uint16_t>(datagram_port(w.client) if seed[2] & 1 else 0)
    port = relay_associate(w.halves[0].r, &local, NULL, &client, &w.association_id)
    must(port > 0)
    w.association = local
    w.association.port = <uint16_t>port
    local.port = <uint16_t>datagram_port(w.server)
    must(relay_forward_udp(w.halves[1].r, UDP_PORT, &local, &id) == 0)


cdef void take_step(world *w, const uint8_t *step, size_t left) noexcept nogil:
    cdef uint32_t what = step[0] & 15, which = step[0] >> 4 & 1
    cdef uint32_t at = step[0] >> 5
    cdef uint32_t size = <uint32_t>step[1] << (step[2] & 7)
    cdef uint64_t due
    if what < 2:
        turn(w, which, step[1], <uint32_t>step[2] << 8 | step[3])
    elif what == 2:
        turn(w, 0, WIRE_SLOTS, 0)
        turn(w, 1, WIRE_SLOTS, 0)
        w.silent_ns = 0
    elif what == 3:
        advance(w, w.now_ns + <uint64_t>step[1] * (1000000 if step[2] & 1 else 100000000))
    elif what == 4:
        due = due_ns(w)
        if due != UINT64_MAX:
            advance(w, due)
    elif what < 7:
        end_write(w, at, size)
    elif what < 9:
        end_read(w, at, size)
    elif what == 9:
        end_shut(&w.ends[at])
    elif what == 10 and step[1] > 128:
        end_break(w, &w.ends[at], step[1] & 1)
    elif what == 11:
        dial(w, TCP_PORT if step[1] else 81)
        if step[1] == 0:
            w.unbroken = False
    elif what == 12:
        hear(w, step[1] if step[2] & 1 else 0, step[2] & 6 == 6)
    elif what == 13:
        take_accepted(w)
    elif what == 14:
        network(w, &w.halves[which], step)
    elif step[3] > 250:
        at %= CONNECTIONS
        if at < w.dials:
            w.unbroken = False
            relay_close(w.halves[0].r, w.connections[at].id)
    else:
        datagram(w, step, step + STEP, left - STEP)


cdef bint is_over(world *w) noexcept nogil:
    cdef uint32_t i
    for i in range(2):
        if w.halves[i].r.stack.tcp_pool.used or w.halves[i].r.stack.syn_pool.used:
            return False
    return True


cdef void settle(world *w) noexcept nogil:
    """The network is whole again and every application wants to end."""
    cdef uint32_t i, _
    cdef uint64_t due
    cdef bint busy
    for _ in range(SETTLE_ROUNDS):
        busy = turn(w, 0, WIRE_SLOTS, 0)
        busy |= turn(w, 1, WIRE_SLOTS, 0)
        hear(w, 0, False)
        while take_accepted(w):
            busy = True
        for i in range(2 * CONNECTIONS):
            end_shut(&w.ends[i])
            busy |= end_read(w, i, STREAM_MAX)
        if is_over(w) and not busy:
            return
        if not busy:
            due = due_ns(w)
            if due != UINT64_MAX:
                w.now_ns = due
    abort()  # it never ends


cdef void judge(world *w) noexcept nogil:
    cdef uint32_t i
    if not w.unbroken:
        return
    for i in range(2 * CONNECTIONS):
        if w.ends[i].fd < 0:
            continue
        must(w.ends[i].ended)
        must(passing(&w.ends[i]) == 0 or w.readers[i] != UNKNOWN)
        if w.readers[i] != UNKNOWN:
            must(w.ends[w.readers[i]].read == passing(&w.ends[i]))


cdef void finish(world *w) noexcept nogil:
    cdef uint32_t i
    for i in range(2 * CONNECTIONS):
        if w.ends[i].fd >= 0:
            stream_close(w.ends[i].fd)
    relay_close(w.halves[0].r, w.association_id)
    # UDP flows are silent from here on, so they end.
    w.now_ns += 200000000000u
    for i in range(2):
        w.halves[i].slots = 0
    for i in range(6):
        turn(w, i & 1, WIRE_SLOTS, 0)
    must(w.halves[0].r.used == 0)
    must(w.halves[1].r.used == 2)
    for i in range(2):
        must(w.halves[i].r.stack.slab.used == 0)
        half_close(&w.halves[i])
    stream_close(w.listener)
    stream_close(w.client)
    stream_close(w.server)


cdef int run_relay(const uint8_t *data, size_t size) noexcept nogil:
    cdef world *w
    cdef uint32_t steps = 0
    if size < 2 * STEP:
        return 0
    w = <world *>calloc(1, sizeof(world))
    must(w != NULL)
    begin(w, data)
    data += STEP
    size -= STEP
    while size >= STEP and steps < STEPS_MAX:
        take_step(w, data, size)
        data += STEP
        size -= STEP
        steps += 1
    settle(w)
    judge(w)
    finish(w)
    free(w)
    return 0
