# SPDX-License-Identifier: Apache-2.0
"""A netstack that Python drives packet by packet, and the invariants its tests check.

A native stack serves its flows itself: each sends so many bytes of one pattern,
compares what it gets with the same, and half-closes.
"""

import ipaddress

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from cext.base.drops cimport DROP_REASON_COUNT, drop_reason_name
from cext.netstack.flow cimport tcp_of
from cext.netstack.layout cimport (
    NS_DENY, NS_DIAL, NS_EVENT_CANCELLED, NS_EVENT_CLOSED, NS_EVENT_CONNECTED, NS_EVENT_OPENED,
    NS_EVENT_PEER_CLOSED, NS_EVENT_READABLE, NS_EVENT_SYN, NS_EVENT_WRITABLE, NS_REASON_EVICTED,
    NS_REASON_FINISHED, NS_REASON_IDLE, NS_REASON_REFUSED, NS_REASON_RESET, NS_REASON_TIMEOUT,
    NS_REASON_UNREACHABLE, NS_REFUSE_HOST, NS_REFUSE_NETWORK, NS_REFUSE_PORT, NS_REFUSE_PROHIBITED,
    NS_REFUSE_RESET, NS_REJECT, QUEUED_READY, TCP_CLOSED, TCP_ESTABLISHED, TCP_FREE,
    TF_REORDERING_SEEN, TF_SACK, TF_TIMESTAMPS, TIMER_OFF, flow_tuple, netstack, ns_datagram, ns_part,
    ns_event, ns_packet, ns_space, tcp_flow,
)
from cext.netstack.stack cimport (
    ns_abort, ns_accept, ns_add_address, ns_close, ns_connect, ns_create, ns_default_limits,
    ns_destroy, ns_input, ns_input_end, ns_listen, ns_next_event, ns_next_packets, ns_open_datagram, ns_poll,
    ns_poll_at, ns_recv, ns_refuse, ns_refuse_datagram, ns_send, ns_send_commit, ns_send_datagram,
    ns_send_space, ns_set_keepalive, ns_set_nagle, ns_set_receive_space, ns_set_user,
    ns_set_user_timeout, ns_shutdown, ns_tuple, ns_unlisten,
)
from cext.netstack.tcp_receive cimport receive_check
from cext.netstack.tcp_scoreboard cimport scoreboard_check
from cext.netstack.tcp_state cimport tcp_pipe, tcp_rto_ms
from cext.netstack.udp cimport udp_check
from cext.wire.tcp cimport seq_gt


cdef enum:
    PATTERN = 65521
    FLOW_OPEN = 1
    FLOW_DONE = 2

cdef uint8_t pattern[2 * PATTERN + 65536]
cdef uint64_t pattern_state = 88172645463325252u
cdef uint32_t pattern_at

for pattern_at in range(2 * PATTERN + 65536):
    if pattern_at < PATTERN:
        pattern_state ^= pattern_state << 13
        pattern_state ^= pattern_state >> 7
        pattern_state ^= pattern_state << 17
        pattern[pattern_at] = <uint8_t> (pattern_state >> 32)
    else:
        pattern[pattern_at] = pattern[pattern_at - PATTERN]

EVENT_SYN = NS_EVENT_SYN
EVENT_CONNECTED = NS_EVENT_CONNECTED
EVENT_READABLE = NS_EVENT_READABLE
EVENT_WRITABLE = NS_EVENT_WRITABLE
EVENT_PEER_CLOSED = NS_EVENT_PEER_CLOSED
EVENT_CLOSED = NS_EVENT_CLOSED
EVENT_CANCELLED = NS_EVENT_CANCELLED
EVENT_OPENED = NS_EVENT_OPENED
REASON_FINISHED = NS_REASON_FINISHED
REASON_RESET = NS_REASON_RESET
REASON_REFUSED = NS_REASON_REFUSED
REASON_TIMEOUT = NS_REASON_TIMEOUT
REASON_UNREACHABLE = NS_REASON_UNREACHABLE
REASON_EVICTED = NS_REASON_EVICTED
REASON_IDLE = NS_REASON_IDLE
REFUSE_RESET = NS_REFUSE_RESET
REFUSE_NETWORK = NS_REFUSE_NETWORK
REFUSE_HOST = NS_REFUSE_HOST
REFUSE_PORT = NS_REFUSE_PORT
REFUSE_PROHIBITED = NS_REFUSE_PROHIBITED
DENY = NS_DENY
REJECT = NS_REJECT
DIAL = NS_DIAL

STATES = (
    "CLOSED", "SYN_SENT", "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2",
    "CLOSE_WAIT", "CLOSING", "LAST_ACK", "FREE",
)
RECOVERIES = ("open", "disorder", "fast", "loss")


# -- callbacks --
cdef void on_random(void *context, void *out, uint32_t length) noexcept nogil:
    cdef uint8_t *p = <uint8_t *> out
    cdef uint32_t i

    for i in range(length):
        p[i] = <uint8_t> ((<Stack> context).next_random() >> 24)


cdef int on_admit(void *context, const flow_tuple *tuple, uint32_t protocol,
                  uint32_t peer) noexcept nogil:
    with gil:
        self = <Stack> context
        if self.admit is None:
            return NS_DIAL
        return self.admit(text_tuple(tuple), protocol, peer)


cdef uint32_t on_native_data(Stack self, uint32_t handle, uint64_t user, const uint8_t *data,
                             uint32_t length) noexcept nogil:
    cdef app_flow *f
    cdef uint32_t n = length

    if user == 0 or user > self.native.flows:
        # A listener's flow whose CONNECTED was not taken yet: park it.
        return 0
    f = &self.native.flow[user - 1]
    if self.native.stall_permille and \
            self.next_random() % 1000 < self.native.stall_permille:
        n = <uint32_t> (self.next_random() % (length + 1))
        f.stalled = n < length or f.stalled
    if memcmp(data, pattern + f.received % PATTERN, n) != 0:
        self.native.mismatches += 1
    f.received += n
    self.native.received += n
    if n == length:
        ns_set_receive_space(self.s, handle, self.native.space + n)
    return n


cdef uint32_t on_data(void *context, uint32_t handle, uint64_t user, const uint8_t *data,
                      uint32_t length) noexcept nogil:
    if (<Stack> context).is_native:
        return on_native_data(<Stack> context, handle, user, data, length)
    with gil:
        self = <Stack> context
        n = length
        if self.take is not None:
            n = min(length, self.take(handle, length))
        self.received.setdefault(handle, bytearray()).extend(data[:n])
        return n


cdef uint32_t on_parts(void *context, uint32_t handle, uint64_t user, const ns_part *parts,
                       uint32_t n) noexcept nogil:
    cdef uint32_t i, taken, done = 0

    (<Stack> context).count_parts()
    for i in range(n):
        taken = on_data(context, handle, user, parts[i].data, parts[i].len)
        done += taken
        if taken < parts[i].len:
            return done
    if (<Stack> context).is_native:
        # Each part made room for itself alone; the stack deducts all of them.
        ns_set_receive_space((<Stack> context).s, handle, (<Stack> context).native.space + done)
    return done


cdef void on_datagram(void *context, uint32_t handle, uint64_t user,
                      const ns_datagram *d) noexcept nogil:
    with gil:
        (<Stack> context).datagrams.append(
            (handle, user, bytes(d.data[:d.len]), d.sequence, d.ttl))


cdef void on_datagram_error(void *context, uint32_t handle, uint64_t user,
                            uint32_t refusal) noexcept nogil:
    with gil:
        (<Stack> context).errors.append((handle, user, refusal))


# -- addresses --
cdef text_address(const uint8_t *address):
    value = ipaddress.IPv6Address(bytes(address[:16]))
    return str(value.ipv4_mapped or value)


cdef text_tuple(const flow_tuple *tuple):
    return (text_address(tuple.local), tuple.local_port, text_address(tuple.remote),
            tuple.remote_port)


cdef int parse_address(str text, uint8_t *out) except -1:
    value = ipaddress.ip_address(text)
    if value.version == 4:
        packed = b"\0" * 10 + b"\xff\xff" + value.packed
    else:
        packed = value.packed
    memcpy(out, <const uint8_t *> <const char *> packed, 16)
    return 0


cdef int parse_tuple(flow_tuple *out, local, remote) except -1:
    memset(out, 0, sizeof(flow_tuple))
    if local[0]:
        parse_address(local[0], out.local)
    out.local_port = local[1]
    parse_address(remote[0], out.remote)
    out.remote_port = remote[1]
    return 0


cdef class Stack:
    """One stack. Limits by the names of struct ns_limits; virtual time in nanoseconds."""

    def __cinit__(self, addresses=("10.0.0.1",), seed=1, now_ns=10**15, ram_bytes=1 << 26,
                  mtu=1420, native=False, admit=None, has_admit=True, parts=False,
                  **limits):
        cdef uint8_t address[16]

        self.random_state = seed
        self.received = {}
        self.datagrams = []
        self.errors = []
        self.admit = admit
        self.take = None
        self.is_native = native
        ns_default_limits(&self.limits, ram_bytes, mtu)
        self.set_limits(limits)
        self.host.context = <void *> self
        self.host.random = on_random
        if has_admit:
            self.host.admit = on_admit
        self.host.tcp_data = on_data
        if parts:
            self.host.tcp_parts = on_parts
        self.host.datagram = on_datagram
        self.host.datagram_error = on_datagram_error
        self.now_ns = now_ns
        self.native.space = 1 << 22
        self.s = ns_create(&self.limits, &self.host, now_ns)
        if self.s == NULL:
            raise ValueError("limits: not sensible, or no memory")
        for text in addresses:
            parse_address(text, address)
            ns_add_address(self.s, address)

    def __dealloc__(self):
        ns_destroy(self.s)
        free(self.native.flow)

    cdef uint64_t next_random(self) noexcept nogil:
        return splitmix(&self.random_state)

    def set_limits(self, limits):
        fields = self.limits
        fields = {**fields, **limits}
        if len(fields) != len(<object> self.limits):
            raise TypeError(f"unknown limit among {sorted(limits)}")
        self.limits = fields

    # -- driver --
    def input(self, bytes packet, now_ns=None, peer=0):
        """Give it a packet, from a place of exactly its size (for the sanitizers)."""
        cdef uint8_t *copy = <uint8_t *> malloc(len(packet) or 1)

        if now_ns is not None:
            self.now_ns = now_ns
        memcpy(copy, <const char *> packet, len(packet))
        ns_input(self.s, self.now_ns, copy, <uint32_t> len(packet), peer)
        ns_input_end(self.s)
        free(copy)

    def input_batch(self, packets, peer=0):
        """Give it packets that all stay where they are until the last was given."""
        cdef bytes packet

        held = list(packets)
        for packet in held:
            ns_input(self.s, self.now_ns, <const uint8_t *> <const char *> packet,
                     <uint32_t> len(packet), peer)
        ns_input_end(self.s)

    cdef void count_parts(self) noexcept nogil:
        self.parts_calls += 1

    def parts_given(self):
        """How often several segments were given in one call."""
        return self.parts_calls

    def poll(self, now_ns):
        self.now_ns = now_ns
        ns_poll(self.s, now_ns)

    def poll_at(self):
        """Nanoseconds, or None when nothing will ever be due."""
        cdef uint64_t at = ns_poll_at(self.s)

        return None if at == 0xffffffffffffffffu else at

    def has_output(self):
        """Whether packets() would be worth asking (it may still give none)."""
        return self.s.answer_head != 0xffffffffu or self.s.ready.head != self.s.ready.tail

    def packets(self, n=128):
        return [p[0] for p in self.packets_with_run(n)]

    def packets_with_run(self, n=128):
        cdef ns_packet out[128]
        cdef uint32_t i, got = ns_next_packets(self.s, self.now_ns, out, min(n, 128))

        return [(bytes(out[i].data[:out[i].len]), out[i].run, out[i].handle, out[i].peer)
                for i in range(got)]

    def events(self):
        """List of (handle, events, reason, user)."""
        cdef ns_event e

        found = []
        while ns_next_event(self.s, &e):
            found.append((e.handle, e.events, e.reason, e.user))
        return found

    # -- consumer --
    def listen(self, port, address=None, backlog=128, user=0, space=1 << 20, protocol=6):
        cdef uint8_t local[16]

        if address is not None:
            parse_address(address, local)
        return ns_listen(self.s, protocol, local if address is not None else NULL, port, backlog,
                         user, space)

    def unlisten(self, listener):
        return ns_unlisten(self.s, listener)

    def connect(self, remote, local=(None, 0), peer=0, user=0, space=1 << 20):
        """The handle, or a negative result."""
        cdef flow_tuple tuple
        cdef uint32_t handle = 0
        cdef int result

        parse_tuple(&tuple, local, remote)
        result = ns_connect(self.s, &tuple, peer, user, space, &handle)
        return handle if result == 0 else result

    def accept(self, request, user=0, space=1 << 20):
        cdef uint32_t handle = 0
        cdef int result = ns_accept(self.s, request, user, space, &handle)

        return handle if result == 0 else result

    def refuse(self, request, how):
        return ns_refuse(self.s, request, how)

    def open_datagram(self, remote, local=(None, 0), protocol=17, peer=0, user=0):
        cdef flow_tuple tuple
        cdef uint32_t handle = 0
        cdef int result

        parse_tuple(&tuple, local, remote)
        result = ns_open_datagram(self.s, &tuple, protocol, peer, user, &handle)
        return handle if result == 0 else result

    def send_datagram(self, handle, bytes data, sequence=0, ttl=0):
        cdef ns_datagram d

        d.data = <const uint8_t *> <const char *> data
        d.len = <uint32_t> len(data)
        d.sequence = sequence
        d.ttl = ttl
        return ns_send_datagram(self.s, handle, &d)

    def refuse_datagram(self, handle, how):
        return ns_refuse_datagram(self.s, handle, how)

    def send(self, handle, bytes data):
        return ns_send(self.s, handle, <const uint8_t *> <const char *> data, <uint32_t> len(data))

    def recv(self, handle, n=65536):
        buffer = bytearray(n)
        got = ns_recv(self.s, handle, <uint8_t *> <char *> buffer, n)
        return bytes(buffer[:got]) if got >= 0 else got

    def set_receive_space(self, handle, space):
        return ns_set_receive_space(self.s, handle, space)

    def set_user_timeout(self, handle, seconds):
        return ns_set_user_timeout(self.s, handle, seconds)

    def set_keepalive(self, handle, seconds):
        return ns_set_keepalive(self.s, handle, seconds)

    def set_nagle(self, handle, on):
        return ns_set_nagle(self.s, handle, on)

    def shutdown(self, handle):
        return ns_shutdown(self.s, handle)

    def close(self, handle):
        return ns_close(self.s, handle)

    def abort(self, handle):
        return ns_abort(self.s, handle)

    def tuple(self, handle):
        cdef flow_tuple tuple

        return text_tuple(&tuple) if ns_tuple(self.s, handle, &tuple) == 0 else None

    # -- looking inside --
    def statistics(self):
        return dict(self.s.statistics)

    def drops(self):
        return {
            drop_reason_name(i).decode(): (&self.s.drops.count[0])[i]
            for i in range(DROP_REASON_COUNT) if (&self.s.drops.count[0])[i]
        }

    def usage(self):
        return {
            "blocks": self.s.slab.used, "blocks_peak": self.s.slab.peak,
            "blocks_cap": self.s.slab.blocks, "block_bytes": self.s.slab.block_bytes,
            "tcp": self.s.tcp_pool.used, "syn": self.s.syn_pool.used,
            "time_wait": self.s.time_wait_pool.used, "udp": self.s.udp_pool.used,
            "table": self.s.table.used, "timers": self.s.wheel.armed,
            "answers": self.s.answers, "reassemblies": self.s.reassemblies,
        }

    def info(self, handle):
        cdef tcp_flow *t = tcp_of(self.s, handle)

        if t == NULL:
            return None
        return {
            "state": STATES[t.state], "recovery": RECOVERIES[t.recovery], "cwnd": t.cwnd,
            "ssthresh": t.ssthresh, "mss": t.mss, "srtt_us": t.srtt_us >> 3,
            "rto_ms": tcp_rto_ms(self.s, t), "min_rtt_us": t.min_rtt_us,
            "snd_una": t.snd_una, "snd_nxt": t.snd_nxt, "write_seq": t.write_seq,
            "snd_wnd": t.snd_wnd, "rcv_nxt": t.rcv_nxt, "rcv_edge": t.rcv_edge,
            "rcv_limit": t.rcv_limit,
            "pipe": tcp_pipe(t), "sacked": t.sacked, "lost": t.lost,
            "retransmitted": t.retransmitted, "parked": t.parked, "rx_blocks": t.rx_blocks,
            "tx_blocks": t.tx_blocks, "rate_kbyte_s": t.rate_kbyte_s, "timer": t.timer,
            "flags": t.flags, "reorder_mult": t.reorder_mult, "ts_offset": t.ts_offset,
            "reordering_seen": t.flags & TF_REORDERING_SEEN != 0, "rcv_scale": t.rcv_scale,
            "snd_scale": t.snd_scale, "user_timeout_s": t.user_timeout_s,
            "sack_ok": t.flags & TF_SACK != 0, "timestamps": t.flags & TF_TIMESTAMPS != 0,
        }

    def check(self):
        """0, or the number of the first invariant that a flow breaks."""
        return stack_check(self.s)

    # -- native applications --
    cdef uint32_t app_new(self, uint32_t handle, uint64_t to_send) noexcept nogil:
        cdef app *a = &self.native
        cdef app_flow *grown
        cdef app_flow *f

        if a.flows == a.capacity:
            a.capacity = a.capacity * 2 if a.capacity else 1024
            grown = <app_flow *> realloc(a.flow, a.capacity * sizeof(app_flow))
            if grown == NULL:
                abort()
            a.flow = grown
        f = &a.flow[a.flows]
        memset(f, 0, sizeof(app_flow))
        a.flows += 1
        f.handle = handle
        f.to_send = to_send
        f.state = FLOW_OPEN
        a.open += 1
        return a.flows

    cdef void app_push(self, app_flow *f) noexcept nogil:
        cdef ns_space space[16]
        cdef int n, i
        cdef uint32_t part, total

        while f.sent < f.to_send:
            n = ns_send_space(self.s, f.handle, space, 16)
            if n <= 0:
                return
            total = 0
            for i in range(n):
                part = space[i].len
                if self.native.chunk and part > self.native.chunk:
                    part = self.native.chunk
                if part > f.to_send - f.sent - total:
                    part = <uint32_t> (f.to_send - f.sent - total)
                memcpy(space[i].data, pattern + (f.sent + total) % PATTERN, part)
                total += part
                if part < space[i].len:
                    break
            ns_send_commit(self.s, f.handle, total)
            f.sent += total
        if not f.shut:
            f.shut = True
            ns_shutdown(self.s, f.handle)

    cdef void app_events(self) noexcept nogil:
        cdef ns_event e
        cdef app_flow *f
        cdef app *a = &self.native

        while ns_next_event(self.s, &e):
            if e.events & NS_EVENT_SYN:
                ns_refuse(self.s, e.handle, NS_REFUSE_RESET)
                continue
            if e.user == 0:
                e.user = self.app_new(e.handle, a.server_bytes)
                ns_set_user(self.s, e.handle, e.user)
                ns_set_receive_space(self.s, e.handle, a.space)
            f = &a.flow[e.user - 1]
            if f.state != FLOW_OPEN:
                continue
            f.handle = e.handle
            if e.events & NS_EVENT_READABLE:
                ns_set_receive_space(self.s, e.handle, a.space)
            if e.events & (NS_EVENT_CONNECTED | NS_EVENT_WRITABLE):
                self.app_push(f)
            if e.events & NS_EVENT_PEER_CLOSED:
                f.peer_closed = True
            if e.events & NS_EVENT_CLOSED:
                f.state = FLOW_DONE
                a.open -= 1
                if e.reason == NS_REASON_FINISHED:
                    a.finished += 1
                else:
                    a.failed += 1
                ns_close(self.s, e.handle)

    cdef void app_resume(self) noexcept nogil:
        cdef uint32_t i

        for i in range(self.native.flows):
            if self.native.flow[i].stalled:
                self.native.flow[i].stalled = False
                ns_set_receive_space(self.s, self.native.flow[i].handle, self.native.space)

    cdef bint app_stalls(self) noexcept nogil:
        cdef uint32_t i

        for i in range(self.native.flows):
            if self.native.flow[i].stalled and self.native.flow[i].state == FLOW_OPEN:
                return True
        return False

    def app_connect(self, remote, to_send, local=(None, 0)):
        """A native client that sends `to_send` bytes of the pattern, then half-closes."""
        cdef flow_tuple tuple
        cdef uint32_t handle = 0, user
        cdef int result

        parse_tuple(&tuple, local, remote)
        user = self.app_new(0, to_send)
        result = ns_connect(self.s, &tuple, 0, user, self.native.space, &handle)
        if result < 0:
            self.native.flows -= 1
            self.native.open -= 1
            return result
        self.native.flow[user - 1].handle = handle
        return handle

    def app_serve(self):
        """Let the native applications of a stack that no Network runs see their events."""
        self.app_events()

    def app_set(self, server_bytes=0, space=None, stall_permille=0, chunk=0):
        self.native.server_bytes = server_bytes
        if space is not None:
            self.native.space = space
        self.native.stall_permille = stall_permille
        self.native.chunk = chunk

    def app_status(self):
        cdef app *a = &self.native

        return {"open": a.open, "finished": a.finished, "failed": a.failed,
                "received": a.received, "mismatches": a.mismatches, "flows": a.flows}

    def app_flow(self, index):
        cdef app_flow *f = &self.native.flow[index]

        return {"sent": f.sent, "received": f.received, "handle": f.handle,
                "peer_closed": f.peer_closed}


cdef int stack_check(netstack *s) noexcept nogil:
    cdef uint32_t i, blocks = 0
    cdef tcp_flow *t
    cdef int broken = udp_check(s)

    if broken:
        return broken
    if s.statistics.bad_transitions:
        return 100
    for i in range(s.tcp_pool.fresh):
        t = &s.tcp[i]
        if t.state == TCP_FREE:
            continue
        blocks += t.tx_blocks + t.rx_blocks
        if t.state == TCP_CLOSED:
            continue
        if seq_gt(t.snd_una, t.snd_nxt) or seq_gt(t.snd_nxt, t.write_seq):
            return 101
        if t.sacked + t.lost > t.snd_nxt - t.snd_una:
            return 102
        if tcp_pipe(t) > t.snd_nxt - t.snd_una:
            return 103
        if t.state >= TCP_ESTABLISHED and t.cwnd < 1:
            return 104
        broken = scoreboard_check(s, t)
        if broken == 0:
            broken = receive_check(s, t)
        if broken:
            return broken
        # Something in flight, or waiting, always has a timer.
        if t.snd_nxt != t.snd_una and t.timer == TIMER_OFF and not t.queued & QUEUED_READY:
            return 105
    if blocks + s.answers + s.reassembly_blocks > s.slab.used:
        return 106
    return 0
