# SPDX-License-Identifier: Apache-2.0
"""TCP between the netstack and sockets of the host; what moves and when, see relay.h."""

from libc.errno cimport (
    EACCES, EADDRINUSE, EAGAIN, EALREADY, EBADMSG, ECONNABORTED, ECONNREFUSED, ECONNRESET,
    EHOSTUNREACH, EINVAL, ENETUNREACH, ENOBUFS, ENOENT, ETIMEDOUT,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cext.engine.core cimport EVENT_DIALLED, event_put, event_tell
from cext.engine.relay_table cimport (
    BODY_ANY, BODY_BROKEN, BODY_ENDED, RELAY_ACCEPTING, RELAY_ANSWERED, RELAY_BROKEN,
    RELAY_CONNECTING, RELAY_DIALLED, RELAY_DIALLING, RELAY_FAILED, RELAY_FIN_GIVEN, RELAY_FIN_SEEN,
    RELAY_FIN_SENT, RELAY_LISTENER_USER, RELAY_LISTENERS, RELAY_NONE, RELAY_OPEN, RELAY_READABLE,
    RELAY_TCP, RELAY_TCP_LISTENER, RELAY_TURN_BYTES, body_take, relay, relay_body, relay_finish,
    relay_find, relay_flow, relay_free, relay_id, relay_next_finished, relay_next_ready,
    relay_queue, relay_take,
)
from cext.engine.relay_udp cimport relay_udp_close, relay_udp_event, relay_udp_read
from cext.host.stream cimport (
    STREAM_EVENTS_MAX, STREAM_FAILED, STREAM_READABLE, STREAM_WRITABLE, datagram_receive,
    stream_close,
    stream_connect, stream_error, stream_event, stream_prepare, stream_read, stream_reset,
    stream_send, stream_send_parts, stream_shutdown, stream_wait, stream_watch,
)
from cext.host.tun cimport iovec
from cext.netstack.ip cimport ip_is_ours
from cext.netstack.layout cimport (
    FLOW_UDP, NS_DENY, NS_DIAL, NS_EVENT_CANCELLED, NS_EVENT_CLOSED, NS_EVENT_CONNECTED,
    NS_EVENT_PEER_CLOSED, NS_EVENT_SYN, NS_EVENT_WRITABLE, NS_FULL, NS_INVALID, NS_IN_USE, NS_OK,
    NS_PARTS_MAX, NS_REASON_FINISHED, NS_REASON_REFUSED, NS_REASON_RESET, NS_REASON_TIMEOUT,
    NS_REASON_UNREACHABLE, NS_REFUSE_HOST, NS_REFUSE_NETWORK, NS_REFUSE_PROHIBITED,
    NS_REFUSE_RESET, NS_REFUSE_SILENT, NS_REJECT, address_from_v4, flow_tuple, ns_event, ns_part,
    ns_space, ref_index, ref_kind,
)
from cext.netstack.stack cimport (
    ns_abort, ns_accept, ns_close, ns_connect, ns_next_event, ns_refuse, ns_send, ns_send_commit,
    ns_send_space, ns_set_keepalive, ns_set_nagle, ns_set_receive_space, ns_shutdown, ns_tuple,
)
from cext.wire.endpoint cimport WT_AF_INET, endpoint
from cext.wire.special cimport address_is_host


cdef enum:
    PARTS = 64
    PROTOCOL_TCP = 6
    # Until the host's side is known, this much may wait in the stack.
    SPACE_BEFORE_OPEN = 64 * 1024
    # A peer that went away without a word must not hold a flow for ever.
    KEEPALIVE_S = 600


cdef int error_of(int result) noexcept nogil:
    """-errno for a result of the stack."""
    if result == NS_FULL:
        return -ENOBUFS
    if result == NS_IN_USE:
        return -EADDRINUSE
    if result == NS_INVALID:
        return -ENETUNREACH
    return 0 if result == NS_OK else -EINVAL


cdef int reason_errno(uint32_t reason) noexcept nogil:
    if reason == NS_REASON_REFUSED:
        return ECONNREFUSED
    if reason == NS_REASON_RESET:
        return ECONNRESET
    if reason == NS_REASON_TIMEOUT:
        return ETIMEDOUT
    if reason == NS_REASON_UNREACHABLE:
        return EHOSTUNREACH
    return ECONNABORTED


# -- ends --

cdef void end(relay *r, relay_flow *f) noexcept nogil:
    """Both directions ended in order."""
    ns_close(r.stack, f.handle)
    stream_close(f.fd)
    relay_free(r, f)


cdef void end_if_done(relay *r, relay_flow *f) noexcept nogil:
    if f.flags & RELAY_FIN_SENT and f.flags & RELAY_FIN_GIVEN:
        end(r, f)


cdef void break_off(relay *r, relay_flow *f) noexcept nogil:
    """Reset both sides."""
    ns_abort(r.stack, f.handle)
    if f.fd >= 0:
        stream_reset(f.fd)
    relay_free(r, f)


cdef void announce(relay *r) noexcept nogil:
    if not r.announced:
        r.asks = False
        r.announced = event_put(r.events, EVENT_DIALLED, NULL, 0)
        # Somebody waits for this very connection.
        event_tell(r.events)


cdef void dial_ended(relay *r, relay_flow *f, int error) noexcept nogil:
    f.error = <short>error
    f.state = RELAY_FAILED if error else RELAY_DIALLED
    relay_finish(r, f)
    announce(r)


# -- host to tunnel --

cdef bint send_early(relay *r, relay_flow *f) noexcept nogil:
    """Whether all of it is queued."""
    cdef int n
    if f.early_at < f.early_len:
        n = ns_send(r.stack, f.handle, f.early + f.early_at, f.early_len - f.early_at)
        if n > 0:
            f.early_at += <uint32_t>n
    return f.early_at == f.early_len


cdef uint32_t passes(relay_flow *f, const iovec *parts, uint32_t got) noexcept nogil:
    """How many of the bytes that were read go into the tunnel."""
    cdef uint32_t length, n, done = 0
    cdef int i = 0
    if f.body.kind == BODY_ANY:
        return got
    while done < got:
        length = <uint32_t>min(<size_t>(got - done), parts[i].iov_len)
        n = body_take(&f.body, <const uint8_t *>parts[i].iov_base, length)
        done += n
        if n < length:
            break
        i += 1
    return done


cdef void host_ended(relay *r, relay_flow *f) noexcept nogil:
    ns_shutdown(r.stack, f.handle)
    f.flags |= RELAY_FIN_SENT
    end_if_done(r, f)


cdef void drop_rest(relay *r, relay_flow *f) noexcept nogil:
    """Read what follows the one request: left there, it would make a reset of the close.

    Once its answer came, that is another request, and the target keeps the connection open for
    it. The target hears the end of the stream, closes, and the client asks again elsewhere.
    """
    cdef uint32_t moved = 0
    cdef int got
    while moved < RELAY_TURN_BYTES:
        got = datagram_receive(f.fd, NULL, r.datagram, sizeof(r.datagram))
        if got == -EAGAIN:
            f.flags &= <uint16_t>~RELAY_READABLE
            return
        if got < 0:
            break_off(r, f)
            return
        if got == 0:
            host_ended(r, f)
            return
        if f.flags & RELAY_ANSWERED:
            ns_shutdown(r.stack, f.handle)
        moved += <uint32_t>got
    relay_queue(r, f)


cdef void pump(relay *r, relay_flow *f) noexcept nogil:
    """Read from the host what the stack has room for."""
    cdef ns_space space[PARTS]
    cdef iovec parts[PARTS]
    cdef uint32_t moved = 0, count
    cdef int i, n, got
    if f.flags & RELAY_FIN_SENT or not send_early(r, f) or not f.flags & RELAY_READABLE:
        return
    while moved < RELAY_TURN_BYTES:
        if f.body.kind == BODY_ENDED:
            drop_rest(r, f)
            return
        n = ns_send_space(r.stack, f.handle, space, PARTS)
        if n <= 0:
            return  # NS_EVENT_WRITABLE or NS_EVENT_CLOSED follows
        for i in range(n):
            parts[i].iov_base = space[i].data
            parts[i].iov_len = space[i].len
        got = stream_read(f.fd, parts, <unsigned int>n)
        count = passes(f, parts, <uint32_t>got) if got > 0 else 0
        ns_send_commit(r.stack, f.handle, count)
        if got == -EAGAIN:
            f.flags &= <uint16_t>~RELAY_READABLE
            return
        if got < 0 or f.body.kind == BODY_BROKEN:
            break_off(r, f)
            return
        if got == 0:
            host_ended(r, f)
            return
        moved += <uint32_t>got
        r.bytes_out += count
    relay_queue(r, f)


# -- tunnel to host --

cdef relay_flow *taker(relay *r, uint64_t user) noexcept nogil:
    """Whose descriptor takes bytes of the stack's flow now; or NULL."""
    cdef relay_flow *f = relay_find(r, <uint32_t>user) if user < RELAY_LISTENER_USER else NULL
    if f == NULL or f.state != RELAY_OPEN or f.flags & RELAY_BROKEN:
        return NULL
    return f


cdef void sent(relay *r, relay_flow *f, uint32_t handle, uint32_t done, int error) noexcept nogil:
    """So many bytes went to the descriptor, until it gave `error`."""
    if error != -EAGAIN and error <= 0:
        # Nothing may be closed from within a call of the stack's.
        f.flags |= RELAY_BROKEN
        relay_queue(r, f)
    r.bytes_in += done
    if done:
        f.flags |= RELAY_ANSWERED
    # The stack deducts what was taken.
    ns_set_receive_space(r.stack, handle, r.space + done)


cdef uint32_t relay_tcp_data(void *context, uint32_t handle, uint64_t user,
                             const uint8_t *data, uint32_t length) noexcept nogil:
    cdef relay *r = <relay *>context
    cdef relay_flow *f = taker(r, user)
    cdef uint32_t done = 0
    cdef int n = 1
    if f == NULL:
        return 0
    while done < length:
        n = stream_send(f.fd, data + done, length - done)
        if n <= 0:
            break
        done += <uint32_t>n
    sent(r, f, handle, done, n)
    return done


cdef uint32_t relay_tcp_parts(void *context, uint32_t handle, uint64_t user,
                              const ns_part *parts, uint32_t count) noexcept nogil:
    cdef relay *r = <relay *>context
    cdef relay_flow *f = taker(r, user)
    cdef iovec vectors[NS_PARTS_MAX]
    cdef uint32_t i, first = 0, done = 0
    cdef size_t left
    cdef int n = 1
    if f == NULL:
        return 0
    for i in range(count):
        vectors[i].iov_base = <void *>parts[i].data
        vectors[i].iov_len = parts[i].len
    while first < count:
        n = stream_send_parts(f.fd, vectors + first, count - first)
        if n <= 0:
            break
        done += <uint32_t>n
        left = <size_t>n
        while first < count and left >= vectors[first].iov_len:
            left -= vectors[first].iov_len
            first += 1
        if left:
            vectors[first].iov_base = <uint8_t *>vectors[first].iov_base + left
            vectors[first].iov_len -= left
    sent(r, f, handle, done, n)
    return done


cdef void give_end(relay *r, relay_flow *f) noexcept nogil:
    """The tunnel's end of stream, once, when the host has a descriptor for it."""
    f.flags |= RELAY_FIN_SEEN
    if f.state == RELAY_OPEN and not f.flags & RELAY_FIN_GIVEN:
        f.flags |= RELAY_FIN_GIVEN
        stream_shutdown(f.fd)
        end_if_done(r, f)


# -- opening --

cdef int adopt(relay *r, relay_flow *f, int fd) noexcept nogil:
    cdef int error = stream_watch(r.set, fd, relay_id(r, f))
    if error == 0:
        f.fd = fd
    return error


cdef void open_flow(relay *r, relay_flow *f) noexcept nogil:
    cdef uint32_t id = relay_id(r, f)
    f.state = RELAY_OPEN
    f.flags |= RELAY_READABLE
    ns_set_nagle(r.stack, f.handle, False)
    ns_set_keepalive(r.stack, f.handle, KEEPALIVE_S)
    ns_set_receive_space(r.stack, f.handle, r.space)
    if f.flags & RELAY_FIN_SEEN:
        give_end(r, f)
    if relay_find(r, id) != NULL:
        relay_queue(r, f)


cdef relay_flow *listener_at(relay *r, uint16_t port) noexcept nogil:
    """The forward of a TCP port in the tunnel, or NULL."""
    cdef relay_flow *f
    cdef uint32_t i
    for i in range(r.listener_count):
        f = relay_find(r, r.listeners[i])
        if f != NULL and f.handle == port:
            return f
    return NULL


cdef bint relay_listens(relay *r, uint16_t port) noexcept nogil:
    return listener_at(r, port) != NULL


cdef int relay_admit(void *context, const flow_tuple *tuple, uint32_t protocol,
                     uint32_t peer) noexcept nogil:
    cdef relay *r = <relay *>context
    if not ip_is_ours(r.stack, tuple.local):
        return NS_DENY
    if protocol == PROTOCOL_TCP and listener_at(r, tuple.local_port) != NULL:
        return NS_DIAL
    return NS_REJECT


cdef uint32_t refusal_of(int error) noexcept nogil:
    """What the tunnel's side hears of -errno: as a router between it and the target says."""
    if error == -ECONNREFUSED:
        return NS_REFUSE_RESET
    if error == -ENETUNREACH:
        return NS_REFUSE_NETWORK
    if error == -EHOSTUNREACH or error == -ETIMEDOUT:
        return NS_REFUSE_HOST
    return NS_REFUSE_PROHIBITED


cdef void refuse(relay *r, uint32_t request, int error) noexcept nogil:
    ns_refuse(r.stack, request, refusal_of(error))


cdef void connect_host(relay *r, uint32_t request) noexcept nogil:
    """A SYN to a port in the tunnel that is forwarded: the host's side comes first."""
    cdef flow_tuple tuple
    cdef relay_flow *listener
    cdef relay_flow *f
    cdef int fd, error
    if ns_tuple(r.stack, request, &tuple) != NS_OK:
        return
    listener = listener_at(r, tuple.local_port)
    if listener == NULL:
        refuse(r, request, -ECONNREFUSED)
        return
    f = relay_take(r, RELAY_TCP)
    if f == NULL:
        refuse(r, request, -ENOBUFS)
        return
    fd = stream_connect(&listener.to)
    error = adopt(r, f, fd) if fd >= 0 else fd
    if error < 0:
        if fd >= 0:
            stream_close(fd)
        relay_free(r, f)
        refuse(r, request, error)
        return
    f.handle = request
    f.state = RELAY_CONNECTING
    r.requests[ref_index(request)] = relay_id(r, f)


cdef void cancelled(relay *r, uint32_t request) noexcept nogil:
    """The tunnel's side took its SYN back, or it took too long."""
    cdef relay_flow *f = relay_find(r, r.requests[ref_index(request)])
    if f != NULL and f.state == RELAY_CONNECTING and f.handle == request:
        stream_close(f.fd)
        relay_free(r, f)
    ns_refuse(r.stack, request, NS_REFUSE_SILENT)


cdef void connected(relay *r, relay_flow *f) noexcept nogil:
    """What became of the host's side."""
    cdef int error = stream_error(f.fd)
    cdef bint refused = error < 0
    if refused:
        refuse(r, f.handle, error)
    elif ns_accept(r.stack, f.handle, relay_id(r, f), SPACE_BEFORE_OPEN, &f.handle) != NS_OK:
        refused = True  # no slot: the SYN comes again
    if refused:
        stream_close(f.fd)
        relay_free(r, f)
    else:
        f.state = RELAY_ACCEPTING


# -- what happens --

cdef void flow_event(relay *r, relay_flow *f, const ns_event *event) noexcept nogil:
    cdef uint32_t id = relay_id(r, f)
    if event.events & NS_EVENT_CONNECTED:
        if f.state == RELAY_DIALLING:
            dial_ended(r, f, 0)
        elif f.state == RELAY_ACCEPTING:
            open_flow(r, f)
    if event.events & NS_EVENT_PEER_CLOSED:
        give_end(r, f)
    elif event.events & NS_EVENT_WRITABLE and f.state == RELAY_OPEN:
        pump(r, f)
    if not event.events & NS_EVENT_CLOSED or relay_find(r, id) == NULL:
        return
    if f.state == RELAY_DIALLING or f.state == RELAY_DIALLED:
        ns_close(r.stack, f.handle)
        if f.state == RELAY_DIALLING:
            dial_ended(r, f, reason_errno(event.reason))
        else:
            # Its id was given out already; splice() or close() finds out.
            f.state = RELAY_FAILED
            f.error = <short>reason_errno(event.reason)
    elif event.reason == NS_REASON_FINISHED:
        end(r, f)
    else:
        ns_close(r.stack, f.handle)
        if f.fd >= 0:
            stream_reset(f.fd)
        relay_free(r, f)


cdef void relay_events(relay *r) noexcept nogil:
    cdef ns_event event
    cdef relay_flow *f
    while ns_next_event(r.stack, &event):
        if event.events & NS_EVENT_CANCELLED:
            cancelled(r, event.handle)
            continue
        if event.events & NS_EVENT_SYN:
            connect_host(r, event.handle)
            continue
        if ref_kind(event.handle) == FLOW_UDP:
            relay_udp_event(r, &event)
            continue
        f = relay_find(r, <uint32_t>event.user)
        if f == NULL or f.handle != event.handle or f.kind != RELAY_TCP:
            ns_close(r.stack, event.handle)
            continue
        flow_event(r, f, &event)


cdef void socket_event(relay *r, relay_flow *f, uint32_t flags) noexcept nogil:
    cdef uint32_t id = relay_id(r, f)
    if f.kind != RELAY_TCP:
        relay_queue(r, f)
        return
    if f.state == RELAY_CONNECTING:
        if flags & (STREAM_WRITABLE | STREAM_FAILED):
            connected(r, f)
        return
    if f.state != RELAY_OPEN:
        return
    if flags & STREAM_FAILED and stream_error(f.fd) < 0:
        break_off(r, f)
        return
    if flags & STREAM_WRITABLE:
        # Parked bytes go on from within this call.
        ns_set_receive_space(r.stack, f.handle, r.space)
    if flags & STREAM_READABLE and relay_find(r, id) != NULL:
        f.flags |= RELAY_READABLE
        relay_queue(r, f)


cdef bint relay_sockets(relay *r, bint ready) noexcept nogil:
    cdef stream_event events[STREAM_EVENTS_MAX]
    cdef relay_flow *f
    cdef uint32_t left = r.used
    cdef int i, n = stream_wait(r.set, events) if ready else 0
    for i in range(n):
        f = relay_find(r, <uint32_t>events[i].tag)
        if f != NULL:
            socket_event(r, f, events[i].flags)
    # Each once: those that come back into the list wait for the next turn.
    while left:
        f = relay_next_ready(r)
        if f == NULL:
            break
        left -= 1
        if f.kind != RELAY_TCP:
            relay_udp_read(r, f)
        elif f.flags & RELAY_BROKEN:
            break_off(r, f)
        elif f.state == RELAY_OPEN:
            pump(r, f)
    if not r.announced and (r.asks or r.finished_head != r.finished_tail):
        announce(r)
    return r.ready_head != RELAY_NONE


# -- wishes --

cdef int relay_dial(relay *r, const endpoint *to, uint32_t *id) noexcept nogil:
    cdef flow_tuple tuple
    cdef relay_flow *f
    cdef int result
    if not address_is_host(to.family, &to.address[0]):
        return -EACCES
    f = relay_take(r, RELAY_TCP)
    if f == NULL:
        return -ENOBUFS
    memset(&tuple, 0, sizeof(tuple))
    if to.family == WT_AF_INET:
        address_from_v4(tuple.remote, to.address)
    else:
        memcpy(tuple.remote, to.address, 16)
    tuple.remote_port = to.port
    id[0] = relay_id(r, f)
    result = ns_connect(r.stack, &tuple, 0, id[0], SPACE_BEFORE_OPEN, &f.handle)
    if result != NS_OK:
        relay_free(r, f)
        return error_of(result)
    f.state = RELAY_DIALLING
    return 0


cdef bint relay_dialled(relay *r, uint32_t *id, int *error) noexcept nogil:
    cdef relay_flow *f
    r.announced = False
    while True:
        f = relay_next_finished(r)
        if f == NULL:
            return False
        id[0] = relay_id(r, f)
        error[0] = f.error
        if f.state == RELAY_FAILED:
            relay_free(r, f)
            return True
        if f.state == RELAY_DIALLED:
            return True


cdef int relay_splice(relay *r, uint32_t id, int fd, uint8_t *early, uint32_t early_len,
                      const relay_body *body, uint32_t head_len) noexcept nogil:
    """Error: the flow is gone or was never ours; `fd` and `early` are still the caller's."""
    cdef relay_flow *f = relay_find(r, id)
    cdef int error
    if f == NULL or f.kind != RELAY_TCP:
        return -ENOENT
    if f.state == RELAY_FAILED:
        error = f.error
        relay_free(r, f)
        return -error
    if f.state != RELAY_DIALLED:
        return -EALREADY
    if body != NULL:
        f.body = body[0]
        if early_len > head_len:
            early_len = head_len + body_take(&f.body, early + head_len, early_len - head_len)
    error = -EBADMSG if f.body.kind == BODY_BROKEN else stream_prepare(fd)
    if error == 0:
        error = adopt(r, f, fd)
    if error:
        break_off(r, f)  # nobody would close it: its id was for this call
        return error
    f.early = early
    f.early_len = early_len
    open_flow(r, f)
    return 0


cdef int relay_forward_tcp(relay *r, uint16_t port, const endpoint *to,
                           uint32_t *id) noexcept nogil:
    cdef relay_flow *f = NULL
    if listener_at(r, port) != NULL:
        return -EADDRINUSE
    if r.listener_count < <uint32_t>RELAY_LISTENERS:
        f = relay_take(r, RELAY_TCP_LISTENER)
    if f == NULL:
        return -ENOBUFS
    id[0] = relay_id(r, f)
    f.handle = port
    f.to = to[0]
    r.listeners[r.listener_count] = id[0]
    r.listener_count += 1
    return 0


cdef void unlisten(relay *r, relay_flow *f) noexcept nogil:
    cdef uint32_t i
    for i in range(r.listener_count):
        if r.listeners[i] == relay_id(r, f):
            r.listener_count -= 1
            r.listeners[i] = r.listeners[r.listener_count]
            break
    relay_free(r, f)


cdef int relay_close(relay *r, uint32_t id) noexcept nogil:
    cdef relay_flow *f = relay_find(r, id)
    if f == NULL:
        return -ENOENT
    if f.kind == RELAY_TCP_LISTENER:
        unlisten(r, f)
    elif f.kind != RELAY_TCP:
        relay_udp_close(r, f)
    elif f.state == RELAY_FAILED:
        relay_free(r, f)
    else:
        break_off(r, f)
    return 0
