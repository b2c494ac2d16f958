# SPDX-License-Identifier: Apache-2.0
"""What a consumer does with a TCP flow: connect, send, shut down, close, abort.

Sending. A flow may queue min(limits.flow_tx_bytes, twice its cwnd, the peer's window
and a little), so that a slow path holds few blocks and a fast one never runs dry.
While the slab is more than three quarters full, a flow that holds more than its
share gets nothing; it is told by NS_EVENT_WRITABLE when that is over.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.netstack.flow cimport flow_find, random_u32, tcp_event, tcp_ready
from cext.netstack.ip cimport ip_our_address
from cext.netstack.layout cimport (
    BLOCK_SENT, NS_BAD_STATE, NS_EVENT_WRITABLE, NS_FULL, NS_INVALID, NS_IN_USE, NS_MAX_HEADERS,
    NS_NIL, NS_OK, NS_REASON_NONE, NS_REASON_RESET, SLAB_SEND, TCP_CLOSED, TCP_CLOSE_WAIT,
    TCP_ESTABLISHED, TCP_FIN_WAIT_2, TCP_SYN_RECEIVED, TCP_SYN_SENT, TF_ACK_NOW, TF_FIN_PENDING,
    TF_FIN_QUEUED, TF_ORPHAN, TF_SACK, TF_TIMESTAMPS, TF_WANT_WRITABLE, TF_WINDOW_SCALE,
    address_is_v4, block, block_data, flow_tuple, netstack, ns_space, slab_block, tcp_flow,
)
from cext.netstack.slab cimport slab_put_chain, slab_take
from cext.netstack.tcp_output cimport tcp_reset
from cext.netstack.tcp_state cimport (
    tcp_finish, tcp_free, tcp_handle, tcp_initial_sequence, tcp_new, tcp_our_mss, tcp_set_state,
    tcp_timestamp_offset,
)
from cext.netstack.tcp_timers cimport tcp_idle_start


cdef enum:
    PROTOCOL_TCP = 6
    PORT_TRIES = 64
    FIRST_PORT = 32768
    PORTS = 28232  # up to 60999, as Linux
    LEAST_SEGMENTS = 4
    STARVED_SHARE = 8  # of the slab that must be free before anybody is woken


# -- connect --
cdef int choose_port(netstack *s, flow_tuple *tuple) noexcept nogil:
    """A local port for which the tuple is free (RFC 6056: at random)."""
    cdef uint32_t i, at = random_u32(s) % PORTS

    for i in range(PORT_TRIES):
        tuple.local_port = <uint16_t> (FIRST_PORT + (at + i) % PORTS)
        if flow_find(s, tuple, PROTOCOL_TCP) == NS_NIL:
            return NS_OK
    return NS_IN_USE


cdef int socket_connect(netstack *s, const flow_tuple *wanted, uint32_t peer, uint64_t user,
                        uint32_t receive_space, uint32_t *handle) noexcept nogil:
    cdef flow_tuple tuple = wanted[0]
    cdef uint8_t zero[16]
    cdef const uint8_t *ours
    cdef tcp_flow *t
    cdef uint32_t iss

    memset(zero, 0, 16)
    if tuple.remote_port == 0 or memcmp(tuple.remote, zero, 16) == 0:
        return NS_INVALID
    if memcmp(tuple.local, zero, 16) == 0:
        ours = ip_our_address(s, tuple.remote)
        if ours == NULL:
            return NS_INVALID
        memcpy(tuple.local, ours, 16)
    if address_is_v4(tuple.local) != address_is_v4(tuple.remote):
        return NS_INVALID
    if tuple.local_port == 0:
        if choose_port(s, &tuple) != NS_OK:
            return NS_IN_USE
    elif flow_find(s, &tuple, PROTOCOL_TCP) != NS_NIL:
        return NS_IN_USE
    t = tcp_new(s, &tuple, peer)
    if t == NULL:
        return NS_FULL
    iss = tcp_initial_sequence(s, &tuple)
    t.user = user
    t.snd_una = iss
    t.snd_nxt = t.write_seq = iss + 1
    t.ts_offset = tcp_timestamp_offset(s, &tuple)
    t.rcv_space = receive_space
    t.mss = tcp_our_mss(s, &tuple)
    t.flags |= TF_SACK | TF_TIMESTAMPS | TF_WINDOW_SCALE | TF_ACK_NOW
    tcp_set_state(s, t, TCP_SYN_SENT)
    tcp_ready(s, t)
    handle[0] = tcp_handle(s, t)
    return NS_OK


# -- send --
cdef void socket_return_space(netstack *s) noexcept nogil:
    slab_put_chain(&s.slab, s.reserved_head)
    s.reserved_head = NS_NIL
    s.reserved_handle = NS_NIL
    s.reserved_room = 0


cdef uint32_t send_room(netstack *s, tcp_flow *t) noexcept nogil:
    """Bytes that the flow may queue beyond what it has."""
    cdef uint32_t queued = t.write_seq - t.snd_una, most = 2 * t.cwnd
    cdef uint32_t least = LEAST_SEGMENTS * <uint32_t> t.mss

    if t.state < TCP_ESTABLISHED:
        most = 10 * <uint32_t> t.mss
    elif most > t.snd_wnd:
        most = t.snd_wnd
    if most < least:
        most = least
    if most > s.limits.flow_tx_bytes:
        most = s.limits.flow_tx_bytes
    if s.slab.used > s.slab.blocks - s.slab.blocks // 4 and t.tx_blocks and \
            <uint32_t> t.tx_blocks * s.tcp_pool.used > s.slab.blocks:
        s.starved = 1
        return 0
    return most - queued if most > queued else 0


cdef inline bint may_send(const tcp_flow *t) noexcept nogil:
    return not t.flags & TF_FIN_QUEUED and (
        t.state == TCP_ESTABLISHED or t.state == TCP_CLOSE_WAIT
        or t.state == TCP_SYN_SENT or t.state == TCP_SYN_RECEIVED)


cdef int socket_space(netstack *s, tcp_flow *t, uint32_t handle, ns_space *out,
                      uint32_t n) noexcept nogil:
    cdef uint32_t room, index, filled = 0, offset, last = NS_NIL
    cdef block *b

    socket_return_space(s)
    if not may_send(t):
        return NS_BAD_STATE
    room = send_room(s, t)
    s.reserved_handle = handle
    # Behind what is queued and was never sent, while that is no full segment.
    if t.tx_next != NS_NIL and n and room:
        b = slab_block(&s.slab, t.tx_tail)
        if b.len < t.mss and not b.flags & BLOCK_SENT:
            s.reserved_room = t.mss - b.len
            # Its front may have been cut by a split or a smaller MSS set before.
            if s.reserved_room > s.slab.block_bytes - b.offset - b.len:
                s.reserved_room = s.slab.block_bytes - b.offset - b.len
            if s.reserved_room > room:
                s.reserved_room = room
            if s.reserved_room:
                out[0].data = block_data(b) + b.len
                out[0].len = s.reserved_room
                room -= s.reserved_room
                filled = 1
    offset = <uint32_t> sizeof(block) + s.limits.headroom_bytes + NS_MAX_HEADERS
    while filled < n and room:
        index = slab_take(&s.slab, SLAB_SEND)
        if index == NS_NIL:
            s.starved = 1
            break
        b = slab_block(&s.slab, index)
        b.offset = <uint16_t> offset
        if last == NS_NIL:
            s.reserved_head = index
        else:
            slab_block(&s.slab, last).next = index
        last = index
        out[filled].data = block_data(b)
        out[filled].len = t.mss if t.mss < room else room
        room -= out[filled].len
        filled += 1
    if filled == 0 and n:
        t.flags |= TF_WANT_WRITABLE
    return <int> filled


cdef int socket_commit(netstack *s, tcp_flow *t, uint32_t handle,
                       uint32_t length) noexcept nogil:
    cdef uint32_t n, index
    cdef block *b

    if handle != s.reserved_handle or not may_send(t):
        socket_return_space(s)
        return NS_BAD_STATE
    if s.reserved_room and length:
        b = slab_block(&s.slab, t.tx_tail)
        n = length if length < s.reserved_room else s.reserved_room
        b.len += <uint16_t> n
        t.write_seq += n
        length -= n
    while length and s.reserved_head != NS_NIL:
        index = s.reserved_head
        b = slab_block(&s.slab, index)
        s.reserved_head = b.next
        n = length if length < t.mss else t.mss
        b.len = <uint16_t> n
        b.seq = t.write_seq
        b.prev = t.tx_tail
        b.next = NS_NIL
        if t.tx_tail == NS_NIL:
            t.tx_head = index
        else:
            slab_block(&s.slab, t.tx_tail).next = index
        t.tx_tail = index
        if t.tx_next == NS_NIL:
            t.tx_next = index
        t.tx_blocks += 1
        t.write_seq += n
        length -= n
    socket_return_space(s)
    t.app_limited = 0
    tcp_ready(s, t)
    return NS_OK if length == 0 else NS_INVALID


cdef int socket_send(netstack *s, tcp_flow *t, uint32_t handle, const uint8_t *data,
                     uint32_t length) noexcept nogil:
    cdef ns_space space[16]
    cdef uint32_t done = 0, batch, n
    cdef int got, i

    while done < length:
        got = socket_space(s, t, handle, space, 16)
        if got < 0:
            return got if done == 0 else <int> done
        if got == 0:
            break
        batch = 0
        for i in range(got):
            n = space[i].len
            if n > length - done - batch:
                n = length - done - batch
            if n == 0:
                break
            memcpy(space[i].data, data + done + batch, n)
            batch += n
        socket_commit(s, t, handle, batch)
        done += batch
    return <int> done


cdef void socket_wake_starved(netstack *s) noexcept nogil:
    cdef uint32_t index = s.tcp_age.oldest
    cdef tcp_flow *t

    if s.slab.used > s.slab.limit[<int> SLAB_SEND] - s.slab.blocks // STARVED_SHARE:
        return
    s.starved = 0
    while index != NS_NIL:
        t = &s.tcp[index]
        if t.flags & TF_WANT_WRITABLE:
            t.flags &= ~<uint32_t> TF_WANT_WRITABLE
            tcp_event(s, t, NS_EVENT_WRITABLE)
        index = t.newer


# -- end --
cdef int socket_shutdown(netstack *s, tcp_flow *t) noexcept nogil:
    if t.flags & TF_FIN_QUEUED:
        return NS_OK
    if not may_send(t):
        return NS_BAD_STATE
    if s.reserved_head != NS_NIL:
        socket_return_space(s)
    t.flags |= TF_FIN_QUEUED | TF_FIN_PENDING
    tcp_ready(s, t)
    return NS_OK


cdef int socket_close(netstack *s, tcp_flow *t) noexcept nogil:
    if t.state == TCP_CLOSED:
        tcp_free(s, t)
        return NS_OK
    t.flags |= TF_ORPHAN
    t.events = 0
    if t.state == TCP_SYN_SENT:
        tcp_finish(s, t, NS_REASON_NONE)
        return NS_OK
    if t.parked:
        # RFC 2525 section 2.17: bytes that nobody read are a failure, say so.
        tcp_reset(s, t)
        tcp_finish(s, t, NS_REASON_RESET)
        return NS_OK
    socket_shutdown(s, t)
    if t.state == TCP_FIN_WAIT_2:
        tcp_idle_start(s, t)
    return NS_OK


cdef int socket_abort(netstack *s, tcp_flow *t) noexcept nogil:
    if t.state == TCP_CLOSED:
        tcp_free(s, t)
        return NS_OK
    t.flags |= TF_ORPHAN
    t.events = 0
    if t.state != TCP_SYN_SENT:
        tcp_reset(s, t)
    tcp_finish(s, t, NS_REASON_RESET)
    return NS_OK
