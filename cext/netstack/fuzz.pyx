# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets: headers, reassembly, and TCP as a sequence of segments, time and calls.

fuzz_tcp reads its input as a program of 8-byte steps for a stack with one listener:
what the peer sends (flags, offsets from what both sides expect, so that short inputs
reach deep states), how much time passes, what the consumer does. Checksums are
always right. After each step the invariants of testing.stack_check() hold.

fuzz_tcp_pair has both ends and the network between them: 4-byte steps write, read, stall,
shut down, let time pass, and deliver, drop, double, swap or damage packets. The model is
naive: byte n of a stream is a function of n. Each segment must carry what belongs at its
sequence number, within the window that the other end has shown; windows never shrink;
nobody acknowledges what was not written; what is read is what was written; the end comes
after the last byte. When the network behaves at last, everything arrives and ends.
"""

from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, calloc, free
from libc.string cimport memcpy, memmove, memset

from cext.base.endian cimport store_be16, store_be32
from cext.netstack.flow cimport flow_find, tcp_of
from cext.netstack.layout cimport (
    FLOW_SYN_REQUEST, FLOW_TCP, NS_DIAL, NS_EVENT_CANCELLED, NS_EVENT_CLOSED, NS_EVENT_CONNECTED,
    NS_EVENT_PEER_CLOSED, NS_EVENT_SYN, NS_NIL, NS_REASON_FINISHED,
    NS_REFUSE_SILENT, NS_REJECT, SYN_FREE, TCP_CLOSED, TCP_FREE, TF_FIN_RECEIVED, TF_ORPHAN, TF_UNSEEN, address_from_v4,
    flow_handle, flow_tuple, netstack, ns_datagram, ns_event, ns_host, ns_limits, ns_packet,
    ref_index, ref_kind, tcp_flow,
)
from cext.netstack.stack cimport (
    ns_abort, ns_accept, ns_add_address, ns_close, ns_connect, ns_create, ns_default_limits,
    ns_destroy, ns_input, ns_listen, ns_next_event, ns_next_packets, ns_poll, ns_poll_at, ns_recv,
    ns_refuse, ns_send, ns_set_keepalive, ns_set_nagle, ns_set_receive_space, ns_shutdown,
)
from cext.netstack.tcp_options cimport (
    tcp_parse, tcp_write_sacks, tcp_write_syn_options, tcp_write_timestamp,
)
from cext.netstack.tcp_state cimport tcp_handle
from cext.netstack.testing cimport stack_check
from cext.netstack.udp cimport udp_handle
from cext.wire.checksum cimport checksum_add, checksum_pseudo, checksum_store
from cext.wire.ip cimport IPV4_MIN_LEN, IPV6_LEN, TCP_ACK, TCP_RST, TCP_SYN
from cext.wire.tcp cimport seq_gt, seq_lt, sequence_range, tcp_segment


cdef enum:
    STEP = 8
    STEPS_MAX = 256
    PAIR_STEP = 4
    PAIR_STEPS_MAX = 1024
    WIRE_SLOTS = 48
    WIRE_BYTES = 1500
    STREAM_MAX = 1 << 20
    SETTLE_ROUNDS = 20000
    SLAB_BYTES = 256 << 10
    # Enough for a packet, and of a size that a sanitizer's allocator keeps: larger memory is
    # mapped anew in each run.
    SMALL_SLAB_BYTES = 120 << 10

# `read` counts what a modelled stream gave, whose bytes are pattern_byte(pattern, n).
cdef struct fuzz_context:
    uint64_t random_state
    uint64_t read
    uint32_t take
    uint32_t pattern
    bint modelled

cdef struct wire_slot:
    uint32_t length
    bint damaged
    uint8_t data[WIRE_BYTES]

# One end, and the packets it sent about which the network has not decided.
cdef struct pair_end:
    fuzz_context context
    netstack *s
    uint64_t written
    uint32_t handle
    uint32_t isn
    uint32_t edge
    uint32_t reason
    uint32_t slots
    bint edge_known
    bint connected
    bint shut
    bint peer_closed
    bint ended
    wire_slot wire[WIRE_SLOTS]


cdef void on_random(void *context, void *out, uint32_t length) noexcept nogil:
    cdef fuzz_context *f = <fuzz_context *> context
    cdef uint8_t *p = <uint8_t *> out
    cdef uint32_t i

    for i in range(length):
        f.random_state = f.random_state * 6364136223846793005u + 1442695040888963407u
        p[i] = <uint8_t> (f.random_state >> 56)


cdef inline uint8_t pattern_byte(uint32_t pattern, uint64_t n) noexcept nogil:
    return <uint8_t> (n * 7 + (n >> 8) * 3 + (n >> 16) + pattern)


cdef void broken_model(const char *what) noexcept nogil:
    fprintf(stderr, "model: %s\n", what)
    abort()


cdef void read_modelled(fuzz_context *f, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i

    for i in range(length):
        if data[i] != pattern_byte(f.pattern, f.read + i):
            broken_model("another byte was read than was written")
    f.read += length


cdef int on_admit(void *context, const flow_tuple *tuple, uint32_t protocol,
                  uint32_t peer) noexcept nogil:
    return NS_DIAL if tuple.local_port & 1 else NS_REJECT


cdef uint32_t on_data(void *context, uint32_t handle, uint64_t user, const uint8_t *data,
                      uint32_t length) noexcept nogil:
    cdef fuzz_context *f = <fuzz_context *> context
    cdef uint32_t n = length if f.take >= length else f.take

    if f.modelled:
        read_modelled(f, data, n)
        if f.take != 0xffffffffu:
            f.take -= n
    return n


cdef void on_datagram(void *context, uint32_t handle, uint64_t user,
                      const ns_datagram *datagram) noexcept nogil:
    pass


cdef void on_error(void *context, uint32_t handle, uint64_t user,
                   uint32_t refusal) noexcept nogil:
    pass


cdef inline fuzz_context plain_context() noexcept nogil:
    cdef fuzz_context context

    memset(&context, 0, sizeof(context))
    context.random_state = 1
    return context


cdef netstack *make_stack(fuzz_context *context, uint8_t host_number,
                          uint32_t slab_bytes) noexcept nogil:
    cdef ns_limits limits
    cdef ns_host host
    cdef uint8_t address[16]
    cdef uint8_t v4[4]
    cdef netstack *s

    ns_default_limits(&limits, 1 << 24, 1420)
    limits.slab_bytes = slab_bytes
    limits.tcp_flows = 16
    limits.udp_flows = 16
    limits.time_waits = 4
    limits.syn_requests = 6
    limits.reassemblies = 4
    limits.reassembly_blocks = 40
    limits.flow_rx_bytes = limits.flow_tx_bytes = 64 << 10
    limits.user_timeout_s = 0 if context.modelled else 30
    limits.keepalive_s = 0 if context.modelled else 40
    memset(&host, 0, sizeof(host))
    host.context = context
    host.random = on_random
    host.admit = on_admit
    host.tcp_data = on_data
    host.datagram = on_datagram
    host.datagram_error = on_error
    context.take = 0xffffffffu
    s = ns_create(&limits, &host, 1000000000)
    if s == NULL:
        abort()
    v4[0], v4[1], v4[2], v4[3] = 10, 0, 0, host_number
    address_from_v4(address, v4)
    ns_add_address(s, address)
    memset(address, 0, 16)
    address[0] = 0xfd
    address[15] = host_number
    ns_add_address(s, address)
    ns_listen(s, 6, NULL, 80, 8, 0, 40000)
    ns_listen(s, 17, NULL, 53, 8, 0, 0)
    return s


cdef void drain(netstack *s, uint64_t now_ns) noexcept nogil:
    """Take all packets; touch each byte, so that a sanitizer sees them."""
    cdef ns_packet out[128]
    cdef uint32_t n, i, rounds = 0
    cdef uint64_t total = 0

    while True:
        n = ns_next_packets(s, now_ns, out, 128)
        for i in range(n):
            total = checksum_add(total, out[i].data, out[i].len)
            if out[i].len > s.limits.mtu_bytes:
                abort()
        if n < 128:
            break
        rounds += 1
        if rounds > 1000:
            abort()
    if total == 1:
        abort()  # uses the sum; no packet of ours adds up to that


cdef void verify(netstack *s) noexcept nogil:
    cdef int broken = stack_check(s)

    if broken != 0:
        fprintf(stderr, "invariant %d\n", broken)
        abort()


cdef void finish(netstack *s) noexcept nogil:
    """End every flow; then nothing may be left."""
    cdef uint32_t i, _i
    cdef uint64_t now_ns = s.now_ns
    cdef ns_event e

    while ns_next_event(s, &e):
        pass
    for i in range(s.tcp_pool.fresh):
        if s.tcp[i].state != TCP_FREE:
            ns_abort(s, tcp_handle(s, &s.tcp[i]))
    for i in range(s.udp_pool.fresh):
        if s.udp[i].taken:
            ns_close(s, udp_handle(s, &s.udp[i]))
    drain(s, now_ns)
    for _i in range(8):
        now_ns += 60000000000u
        ns_poll(s, now_ns)
        drain(s, now_ns)
    drain(s, now_ns)
    for i in range(s.syn_pool.fresh):
        if s.syn[i].state != SYN_FREE:
            ns_refuse(s, flow_handle(FLOW_SYN_REQUEST, i, s.syn[i].generation),
                      NS_REFUSE_SILENT)
    if s.slab.used != 0 or s.tcp_pool.used != 0 or s.udp_pool.used != 0 or \
            s.syn_pool.used != 0 or s.time_wait_pool.used != 0 or s.table.used != 0 or \
            s.wheel.armed != 0:
        abort()
    ns_destroy(s)


cdef int fuzz_tcp_header(const uint8_t *data, size_t size) noexcept nogil:
    cdef tcp_segment seg

    if tcp_parse(&seg, data, <uint32_t> size):
        if seg.payload + seg.payload_len != data + size or seg.window_scale > 14 or \
                seg.sacks > 4:
            abort()
    return 0


cdef int fuzz_packet(const uint8_t *data, size_t size) noexcept nogil:
    cdef fuzz_context context = plain_context()
    cdef netstack *s = make_stack(&context, 1, SMALL_SLAB_BYTES)

    ns_input(s, s.now_ns, data, <uint32_t> size, 0)
    verify(s)
    drain(s, s.now_ns)
    finish(s)
    return 0


cdef int fuzz_reassembly(const uint8_t *data, size_t size) noexcept nogil:
    cdef fuzz_context context = plain_context()
    cdef netstack *s = make_stack(&context, 1, SMALL_SLAB_BYTES)
    cdef uint8_t packet[20 + 256]
    cdef uint32_t length, step = 0

    # A step: identification, offset in eights with the flag, length, fill.
    while size >= 4 and step < STEPS_MAX:
        length = data[2]
        memset(packet, data[3], sizeof(packet))
        store_be32(packet, 0x45000000u | (20 + length))
        store_be32(packet + 4, <uint32_t> (data[0] & 7) << 16 | (data[1] & 0x7f)
                   | (0x2000 if data[1] & 0x80 else 0))
        packet[8] = 64
        packet[9] = 17
        store_be16(packet + 10, 0)
        store_be32(packet + 12, 0x0a000009u)
        store_be32(packet + 16, 0x0a000001u)
        checksum_store(packet + 10, checksum_add(0, packet, 20))
        ns_input(s, s.now_ns + (1000000000u if data[0] & 8 else 0), packet, 20 + length, 0)
        if data[0] & 16:
            ns_poll(s, s.now_ns + 10000000000u)
        verify(s)
        data += 4
        size -= 4
        step += 1
    finish(s)
    return 0


cdef uint32_t write_options(uint8_t *out, const uint8_t *step, const tcp_flow *t,
                            uint32_t clock_ms) noexcept nogil:
    """Options of a fuzzed segment, by three bits of the step."""
    cdef uint32_t n = 0
    cdef sequence_range ranges[2]

    if step[1] & 2:  # SYN: always everything, so that later steps may use it
        return tcp_write_syn_options(out, <uint16_t> (100 + step[7] * 8), step[5] & 1,
                                     step[5] & 2, step[5] >> 4, step[5] & 4, clock_ms, 0, 0)
    if step[5] & 4:
        n += tcp_write_timestamp(out, clock_ms - (step[5] >> 6) * 500,
                                 t.ts_offset + clock_ms if t != NULL else 0)
    if step[5] & 8 and t != NULL:
        ranges[0].start = t.snd_una + step[6] * 64
        ranges[0].end = ranges[0].start + step[7] * 64
        ranges[1].start = ranges[0].start - 1000
        ranges[1].end = ranges[1].start + 700
        n += tcp_write_sacks(out + n, ranges, 1 + (step[5] >> 5 & 1))
    return n


cdef void peer_sends(netstack *s, const uint8_t *step) noexcept nogil:
    """A segment of client 40000 or 40001, aimed at what the flow expects."""
    cdef uint8_t packet[20 + 60 + 1400]
    cdef uint8_t *p = packet + 20
    cdef uint8_t both[8]
    cdef uint32_t options, length, port = 40000 + (step[0] >> 7), seq, ack, ref
    cdef uint32_t destination = 80 if step[0] & 0x40 == 0 else 81
    cdef flow_tuple tuple
    cdef tcp_flow *t = NULL

    store_be32(both, 0x0a000001u)
    address_from_v4(tuple.local, both)
    store_be32(both, 0x0a000009u)
    address_from_v4(tuple.remote, both)
    tuple.local_port = <uint16_t> destination
    tuple.remote_port = <uint16_t> port
    seq = 1000
    ack = 1
    ref = flow_find(s, &tuple, 6)
    if ref != NS_NIL:
        if ref_kind(ref) == FLOW_TCP:
            t = &s.tcp[ref_index(ref)]
            seq = t.rcv_nxt
            ack = t.snd_nxt
        elif ref_kind(ref) == FLOW_SYN_REQUEST:
            seq = s.syn[ref_index(ref)].irs + (0 if step[1] & 2 else 1)
            ack = s.syn[ref_index(ref)].iss + 1
        else:
            seq = s.time_wait[ref_index(ref)].rcv_nxt
            ack = s.time_wait[ref_index(ref)].snd_nxt
    seq += <uint32_t> (<int8_t> step[2]) * (1 if step[3] & 1 else 300)
    if t != NULL and step[3] & 2:
        ack = t.snd_una
    ack += <uint32_t> (<int8_t> step[4]) * (1 if step[3] & 4 else 300)
    length = (step[3] >> 4) * 93
    store_be16(p, <uint16_t> port)
    store_be16(p + 2, <uint16_t> destination)
    store_be32(p + 4, seq)
    store_be32(p + 8, ack)
    options = write_options(p + 20, step, t, s.now_ms)
    p[12] = <uint8_t> ((20 + options) // 4 << 4)
    p[13] = step[1] & 0x3f
    store_be16(p + 14, <uint16_t> (step[6] << 8 if step[3] & 8 else step[6]))
    store_be32(p + 16, 0)
    memset(p + 20 + options, step[7], length)
    length += 20 + options
    store_be32(both, 0x0a000009u)
    store_be32(both + 4, 0x0a000001u)
    checksum_store(p + 16, checksum_add(checksum_pseudo(both, 4, 6, length), p, length))
    store_be32(packet, 0x45000000u | (20 + length))
    store_be32(packet + 4, 0)
    store_be32(packet + 8, 0x40060000u)
    memcpy(packet + 12, both, 8)
    checksum_store(packet + 10, checksum_add(0, packet, 20))
    ns_input(s, s.now_ns, packet, 20 + length, step[0] >> 5 & 1)


cdef void consumer_does(netstack *s, fuzz_context *context, const uint8_t *step) noexcept nogil:
    cdef uint8_t data[4096]
    cdef uint32_t handle = 0, i, n = 0
    cdef tcp_flow *t = NULL
    cdef ns_event e
    cdef uint32_t what = step[1] & 15

    while ns_next_event(s, &e):
        if e.events & NS_EVENT_SYN and step[2] & 1:
            ns_accept(s, e.handle, 0, 5000, &handle)
        elif e.events & (NS_EVENT_SYN | NS_EVENT_CANCELLED):
            ns_refuse(s, e.handle, step[2] % 6)
        elif e.events & NS_EVENT_CLOSED:
            ns_close(s, e.handle)
    for i in range(s.tcp_pool.fresh):
        if s.tcp[i].state != TCP_FREE and not s.tcp[i].flags & (TF_ORPHAN | TF_UNSEEN):
            n += 1
            if n > (step[0] >> 6):
                t = &s.tcp[i]
                break
    if t == NULL:
        return
    handle = tcp_handle(s, t)
    if what == 0:
        ns_send(s, handle, data, step[3] * 16)
    elif what == 1:
        ns_shutdown(s, handle)
    elif what == 2:
        ns_close(s, handle)
    elif what == 3:
        ns_abort(s, handle)
    elif what == 4:
        ns_recv(s, handle, data, step[3] * 16)
    elif what == 5:
        context.take = 0xffffffffu if step[3] & 1 else step[3]
        ns_set_receive_space(s, handle, <uint32_t> step[4] * 256)
    elif what == 6:
        ns_set_nagle(s, handle, step[3] & 1)
    elif what == 7:
        ns_set_keepalive(s, handle, step[3])
    else:
        ns_send(s, handle, data, 4096)


cdef int fuzz_tcp(const uint8_t *data, size_t size) noexcept nogil:
    cdef fuzz_context context = plain_context()
    cdef netstack *s = make_stack(&context, 1, SLAB_BYTES)
    cdef uint32_t steps = 0, kind
    cdef uint64_t now_ns = s.now_ns, at

    while size >= STEP and steps < STEPS_MAX:
        kind = data[0] & 7
        if kind < 4:
            peer_sends(s, data)
        elif kind < 6:
            consumer_does(s, &context, data)
        else:
            at = ns_poll_at(s)
            now_ns = s.now_ns + <uint64_t> data[2] * (1000000 if kind == 6 else 100000000)
            if data[1] & 1 and at != 0xffffffffffffffffu and at > s.now_ns:
                now_ns = at
            ns_poll(s, now_ns)
        verify(s)
        if not data[0] & 8:
            drain(s, s.now_ns)
            verify(s)
        data += STEP
        size -= STEP
        steps += 1
    finish(s)
    return 0


# -- two ends --
cdef void look_at(pair_end *a, pair_end *b, const ns_packet *p) noexcept nogil:
    """Hold a packet that `a` sends to `b` against the model."""
    cdef uint32_t header = IPV4_MIN_LEN if p.data[0] >> 4 == 4 else IPV6_LEN, i, edge
    cdef uint64_t at
    cdef tcp_segment seg
    cdef tcp_flow *t = tcp_of(a.s, a.handle)

    if p.data[9 if header == <uint32_t> IPV4_MIN_LEN else 6] != 6:
        return  # ICMP, about a packet that was damaged
    if not tcp_parse(&seg, p.data + header, p.len - header):
        broken_model("a packet that does not parse")
    if seg.flags & TCP_RST:
        return
    if seg.flags & (TCP_SYN | TCP_ACK) == TCP_SYN:
        a.isn = seg.seq
    at = <uint32_t> (seg.seq - a.isn - 1)
    if seg.payload_len:
        if at + seg.payload_len > a.written:
            broken_model("more was sent than was written")
        for i in range(seg.payload_len):
            if seg.payload[i] != pattern_byte(b.context.pattern, at + i):
                broken_model("another byte was sent than was written")
        if b.edge_known and seq_gt(seg.seq + seg.payload_len, b.edge):
            broken_model("sent beyond the window")
    if not (seg.flags & TCP_ACK and a.connected and b.connected) or seg.flags & TCP_SYN:
        return
    if <uint32_t> (seg.ack - b.isn - 1) > b.written + b.shut:
        broken_model("acknowledged what was not written")
    if t == NULL or t.state == TCP_CLOSED:
        return  # TIME_WAIT answers
    edge = seg.ack + (<uint32_t> seg.window << t.rcv_scale)
    if a.edge_known and seq_lt(edge, a.edge):
        broken_model("the window shrank")
    a.edge = edge
    a.edge_known = True


cdef void push_wire(pair_end *a, const uint8_t *data, uint32_t length,
                    bint damaged) noexcept nogil:
    """Beyond what it holds the network drops."""
    if a.slots < WIRE_SLOTS and length <= WIRE_BYTES:
        memcpy(a.wire[a.slots].data, data, length)
        a.wire[a.slots].length = length
        a.wire[a.slots].damaged = damaged
        a.slots += 1


cdef void take_wire(pair_end *a, uint32_t i) noexcept nogil:
    a.slots -= 1
    memmove(&a.wire[i], &a.wire[i + 1], (a.slots - i) * sizeof(wire_slot))


cdef void pump(pair_end *a, pair_end *b) noexcept nogil:
    cdef ns_packet out[16]
    cdef uint32_t n = 16, i

    while n == 16:
        n = ns_next_packets(a.s, a.s.now_ns, out, 16)
        for i in range(n):
            look_at(a, b, &out[i])
            push_wire(a, out[i].data, out[i].len, False)


cdef void deliver(pair_end *a, pair_end *b, uint32_t i) noexcept nogil:
    """Packet i of the wire from `a` arrives at `b`."""
    ns_input(b.s, b.s.now_ns, a.wire[i].data, a.wire[i].length, 0)
    take_wire(a, i)


cdef void hear_events(pair_end *a, pair_end *b) noexcept nogil:
    cdef tcp_flow *t
    cdef ns_event e

    while ns_next_event(a.s, &e):
        if e.events & NS_EVENT_CONNECTED:
            a.handle = e.handle
            a.connected = True
            # Of the SYN that counts: a second one may have made another request.
            t = tcp_of(a.s, a.handle)
            b.isn = t.rcv_nxt - 1 - <uint32_t> a.context.read - t.parked
            b.isn -= t.flags & TF_FIN_RECEIVED != 0
        if e.events & NS_EVENT_PEER_CLOSED:
            if not b.shut or a.context.read != b.written:
                broken_model("the end came before the last byte")
            a.peer_closed = True
        if e.events & NS_EVENT_CLOSED:
            a.ended = True
            a.reason = e.reason
            if e.reason == NS_REASON_FINISHED and not (a.peer_closed and a.shut):
                broken_model("finished without an end")
            ns_close(a.s, e.handle)
    if a.context.read > b.written:
        broken_model("more was read than was written")


cdef void write_stream(pair_end *a, pair_end *b, uint32_t length) noexcept nogil:
    cdef uint8_t data[8192]
    cdef uint32_t i
    cdef int done

    if a.shut or a.handle == 0 or a.written > STREAM_MAX:
        return
    for i in range(length):
        data[i] = pattern_byte(b.context.pattern, a.written + i)
    done = ns_send(a.s, a.handle, data, length)
    if done > 0:
        a.written += <uint32_t> done


cdef void pass_time(pair_end *a, pair_end *b, uint64_t now_ns) noexcept nogil:
    ns_poll(a.s, now_ns)
    ns_poll(b.s, now_ns)


cdef uint64_t due_ns(pair_end *a, pair_end *b) noexcept nogil:
    cdef uint64_t at = ns_poll_at(a.s), other = ns_poll_at(b.s)

    if other < at:
        at = other
    return at if at > a.s.now_ns else a.s.now_ns


cdef void pair_step(pair_end *a, pair_end *b, const uint8_t *step) noexcept nogil:
    """`a` is the end that the step is about; the network carries what it sent."""
    cdef uint8_t data[4096]
    cdef uint32_t what = step[0] & 15, i = step[1] % a.slots if a.slots else 0
    cdef uint64_t at
    cdef int got

    if what < 2:
        write_stream(a, b, <uint32_t> (step[1] | (step[2] & 31) << 8))
    elif what == 2 and a.slots:
        deliver(a, b, i)
    elif what == 3:
        while a.slots:
            deliver(a, b, 0)
    elif what == 4 and a.slots:
        take_wire(a, i)
    elif what == 5 and a.slots:
        push_wire(a, a.wire[i].data, a.wire[i].length, a.wire[i].damaged)
    elif what == 6 and a.slots and not a.wire[i].damaged:
        # One bit: two of them may leave the checksum as it was.
        a.wire[i].damaged = True
        at = (step[2] | <uint32_t> step[3] << 8) % a.wire[i].length
        a.wire[i].data[at] ^= <uint8_t> (1 << (step[3] >> 5))
    elif what == 7:
        pass_time(a, b, a.s.now_ns + <uint64_t> step[1] * 1000000 + step[2] * 4000)
    elif what == 8:
        at = due_ns(a, b)
        if at != 0xffffffffffffffffu:
            pass_time(a, b, at)
    elif what == 9:
        pass_time(a, b, a.s.now_ns + <uint64_t> step[1] * 100000000)
    elif what == 10:
        a.context.take = <uint32_t> step[1] * 16
    elif what == 11:
        a.context.take = 0xffffffffu
        ns_set_receive_space(a.s, a.handle, <uint32_t> step[1] * 512)
    elif what == 12:
        got = ns_recv(a.s, a.handle, data, <uint32_t> step[1] * 16)
        if got > 0:
            read_modelled(&a.context, data, <uint32_t> got)
    elif what == 13 and step[1] > 200 and a.handle != 0:
        if not a.shut and ns_shutdown(a.s, a.handle) == 0:
            a.shut = True
    elif what == 14:
        ns_set_nagle(a.s, a.handle, step[1] & 1)
    elif what == 15:
        # A row of losses and arrivals, as bits.
        at = step[1] | <uint32_t> step[2] << 8
        while a.slots and at:
            if at & 1:
                deliver(a, b, 0)
            else:
                take_wire(a, 0)
            at >>= 1


cdef void want_the_end(pair_end *a) noexcept nogil:
    a.context.take = 0xffffffffu
    if a.connected and not a.ended:
        # More than can be parked, so that once is enough.
        ns_set_receive_space(a.s, a.handle, 1 << 20)
        if not a.shut and ns_shutdown(a.s, a.handle) == 0:
            a.shut = True


cdef void settle(pair_end *a, pair_end *b) noexcept nogil:
    """The network loses nothing any more and both sides want to end."""
    cdef uint32_t _i
    cdef uint64_t at

    for _i in range(SETTLE_ROUNDS):
        want_the_end(a)
        want_the_end(b)
        pump(a, b)
        pump(b, a)
        while a.slots:
            deliver(a, b, 0)
        while b.slots:
            deliver(b, a, 0)
        hear_events(a, b)
        hear_events(b, a)
        if a.ended and (b.ended or not b.connected):
            break
        at = due_ns(a, b)
        if at == 0xffffffffffffffffu:
            break
        pass_time(a, b, at)
    if not (a.connected and b.connected):
        return  # the handshake may fail; who is connected alone learns it by a reset
    if not (a.ended and b.ended):
        broken_model("it never ends")
    if a.reason != NS_REASON_FINISHED or b.reason != NS_REASON_FINISHED:
        broken_model("it ended in disorder")
    if a.context.read != b.written or b.context.read != a.written:
        broken_model("something never arrived")


cdef int fuzz_tcp_pair(const uint8_t *data, size_t size) noexcept nogil:
    cdef pair_end *a
    cdef pair_end *b
    cdef flow_tuple tuple
    cdef uint32_t steps = 0

    if size < PAIR_STEP:
        return 0
    a = <pair_end *> calloc(1, sizeof(pair_end))
    b = <pair_end *> calloc(1, sizeof(pair_end))
    if a == NULL or b == NULL:
        abort()
    a.context.modelled = b.context.modelled = True
    a.context.random_state = data[0]
    b.context.random_state = <uint64_t> data[1] << 8
    b.context.pattern = 101
    a.s = make_stack(&a.context, 1, SLAB_BYTES)
    b.s = make_stack(&b.context, 2, SLAB_BYTES)
    memset(&tuple, 0, sizeof(tuple))
    memcpy(tuple.remote, b.s.address[data[2] & 1], 16)
    tuple.remote_port = 80
    if ns_connect(a.s, &tuple, 0, 0, 200 + <uint32_t> data[3] * 200, &a.handle) != 0:
        abort()
    while size >= 2 * PAIR_STEP and steps < PAIR_STEPS_MAX:
        data += PAIR_STEP
        size -= PAIR_STEP
        steps += 1
        if data[0] & 16:
            pair_step(a, b, data)
        else:
            pair_step(b, a, data)
        hear_events(a, b)
        hear_events(b, a)
        verify(a.s)
        verify(b.s)
        if not data[0] & 128:
            pump(a, b)
            pump(b, a)
    settle(a, b)
    finish(a.s)
    finish(b.s)
    free(a)
    free(b)
    return 0


def run(name: str, data: bytes) -> int:
    """Replay one input."""
    cdef const uint8_t *p = <const uint8_t *> <const char *> data

    if name == "packet":
        return fuzz_packet(p, len(data))
    if name == "tcp_header":
        return fuzz_tcp_header(p, len(data))
    if name == "reassembly":
        return fuzz_reassembly(p, len(data))
    if name == "tcp":
        return fuzz_tcp(p, len(data))
    if name == "tcp_pair":
        return fuzz_tcp_pair(p, len(data))
    raise ValueError(f"no target {name!r}")
