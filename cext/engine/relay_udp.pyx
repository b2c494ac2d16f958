# SPDX-License-Identifier: Apache-2.0
"""UDP between the netstack and sockets of the host: forwards and SOCKS associations.

    own          a flow and one end of a socket pair of the interpreter's
    forward      tunnel port -> a flow each -> a connected socket each -> the host's target
    association  a bound socket -> by client (port forward) or by the destination in the
                 SOCKS header -> a flow each; answers go back over the bound socket.
                 A name that is not known yet waits: see relay_names.h
"""

from libc.errno cimport EADDRINUSE, EAGAIN, ECONNREFUSED, ENETUNREACH, ENOBUFS
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.endian cimport load_be16, store_be16
from cext.engine.relay_table cimport (
    RELAY_ASSOCIATION, RELAY_ASSOCIATIONS, RELAY_CLIENTS, RELAY_DATAGRAM_BYTES, RELAY_HAS_CLIENT,
    RELAY_HAS_TARGET, RELAY_LISTENER_USER, RELAY_NAME_OFFSET, RELAY_NEW_UDP, RELAY_NONE,
    RELAY_OPEN, RELAY_TURN_DATAGRAMS, RELAY_UDP, RELAY_UDP_CLIENT, RELAY_UDP_LISTENER,
    names_find, names_hold, names_learn, names_release, relay, relay_find, relay_flow,
    relay_free, relay_held, relay_id, relay_name, relay_queue, relay_take,
)
from cext.host.clock cimport clock_now_ns
from cext.host.stream cimport (
    datagram_bind, datagram_connect, datagram_port, datagram_receive, datagram_send,
    stream_close, stream_watch,
)
from cext.netstack.layout cimport (
    NS_EVENT_CLOSED, NS_EVENT_OPENED, NS_IN_USE, NS_OK, NS_REFUSE_PORT, address_from_v4,
    flow_tuple, ns_datagram, ns_event,
)
from cext.netstack.stack cimport (
    ns_close, ns_listen, ns_open_datagram, ns_refuse_datagram, ns_send_datagram, ns_set_user,
    ns_unlisten,
)
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6, endpoint
from cext.wire.special cimport address_is_host


cdef enum:
    PROTOCOL_UDP = 17
    SOCKS_V4 = 1
    SOCKS_NAME = 3
    SOCKS_V6 = 4
    SOCKS_V4_LEN = 10
    SOCKS_V6_LEN = 22


cdef void tuple_to(flow_tuple *tuple, const endpoint *to) noexcept nogil:
    memset(tuple, 0, sizeof(flow_tuple))
    if to.family == WT_AF_INET:
        address_from_v4(tuple.remote, to.address)
    else:
        memcpy(tuple.remote, to.address, 16)
    tuple.remote_port = to.port


cdef bint is_same(const endpoint *a, const endpoint *b) noexcept nogil:
    return a.family == b.family and a.port == b.port and memcmp(a.address, b.address, 16) == 0


cdef bint is_host(const endpoint *to) noexcept nogil:
    """Whether an address can be one host in a tunnel."""
    return to.port != 0 and address_is_host(to.family, &to.address[0])


# -- tunnel to host --

cdef relay_flow *fresh_flow(relay *r, uint32_t listener_id, uint32_t handle) noexcept nogil:
    """The flow of a listener that the stack opened and does not know as ours yet."""
    cdef relay_flow *listener
    cdef relay_flow *f
    cdef uint32_t i
    cdef int fd
    for i in range(r.fresh_count):
        f = relay_find(r, r.fresh[i])
        if f != NULL and f.handle == handle:
            return f
    listener = relay_find(r, listener_id)
    if listener == NULL or listener.kind != RELAY_UDP_LISTENER or r.fresh_count == RELAY_NEW_UDP:
        return NULL
    fd = datagram_connect(&listener.to)
    if fd < 0:
        return NULL
    f = relay_take(r, RELAY_UDP)
    if f == NULL or stream_watch(r.set, fd, relay_id(r, f)) < 0:
        stream_close(fd)
        if f != NULL:
            relay_free(r, f)
        return NULL
    f.fd = fd
    f.handle = handle
    f.state = RELAY_OPEN
    r.fresh[r.fresh_count] = relay_id(r, f)
    r.fresh_count += 1
    return f


cdef void answer_socks(relay *r, relay_flow *association, const endpoint *source,
                       const ns_datagram *d) noexcept nogil:
    cdef uint8_t *out = r.datagram
    cdef uint32_t length = SOCKS_V4_LEN if source.family == WT_AF_INET else SOCKS_V6_LEN
    if d.len > RELAY_DATAGRAM_BYTES:
        return
    memset(out, 0, 3)
    out[3] = SOCKS_V4 if source.family == WT_AF_INET else SOCKS_V6
    memcpy(out + 4, source.address, length - 6)
    store_be16(out + length - 2, source.port)
    memcpy(out + length, d.data, d.len)
    datagram_send(association.fd, &association.to, out, length + d.len)


cdef void relay_datagram(void *context, uint32_t handle, uint64_t user,
                         const ns_datagram *d) noexcept nogil:
    cdef relay *r = <relay *>context
    cdef relay_flow *f
    cdef relay_flow *association
    if user >= RELAY_LISTENER_USER:
        f = fresh_flow(r, <uint32_t>user, handle)
    else:
        f = relay_find(r, <uint32_t>user)
    if f == NULL:
        return
    r.bytes_in += d.len
    if f.kind == RELAY_UDP:
        datagram_send(f.fd, NULL, d.data, d.len)
        return
    association = relay_find(r, f.parent)
    if association == NULL:
        return
    if association.flags & RELAY_HAS_TARGET:
        datagram_send(association.fd, &f.target, d.data, d.len)
    else:
        answer_socks(r, association, &f.target, d)


# -- ends --

cdef void unlink(relay *r, relay_flow *f) noexcept nogil:
    """Take a client out of its association's list."""
    cdef relay_flow *association = relay_find(r, f.parent)
    cdef uint32_t index = <uint32_t>(f - r.flows)
    cdef uint32_t *at
    if association == NULL:
        return
    at = &association.child
    while at[0] != RELAY_NONE:
        if at[0] == index:
            at[0] = f.child
            association.children -= 1
            return
        at = &r.flows[at[0]].child


cdef void relay_udp_event(relay *r, const ns_event *event) noexcept nogil:
    cdef relay_flow *f = NULL
    cdef uint32_t i
    if event.user < RELAY_LISTENER_USER:
        f = relay_find(r, <uint32_t>event.user)
    elif event.events & NS_EVENT_OPENED:
        for i in range(r.fresh_count):
            f = relay_find(r, r.fresh[i])
            if f != NULL and f.handle == event.handle:
                ns_set_user(r.stack, event.handle, r.fresh[i])
                r.fresh_count -= 1
                r.fresh[i] = r.fresh[r.fresh_count]
                break
            f = NULL
    if f != NULL and not event.events & NS_EVENT_CLOSED:
        return
    ns_close(r.stack, event.handle)
    if f == NULL or f.handle != event.handle:
        return
    if f.kind == RELAY_UDP_CLIENT:
        unlink(r, f)
    elif f.fd >= 0:
        stream_close(f.fd)
    relay_free(r, f)


cdef void relay_udp_close(relay *r, relay_flow *f) noexcept nogil:
    cdef relay_flow *client
    if f.kind == RELAY_UDP_LISTENER:
        ns_unlisten(r.stack, f.handle)
    elif f.kind == RELAY_ASSOCIATION:
        while f.child != RELAY_NONE:
            client = &r.flows[f.child]
            f.child = client.child
            ns_close(r.stack, client.handle)
            relay_free(r, client)
        r.associations -= 1
        stream_close(f.fd)
    else:
        if f.kind == RELAY_UDP_CLIENT:
            unlink(r, f)
        ns_close(r.stack, f.handle)
        if f.fd >= 0:
            stream_close(f.fd)
    relay_free(r, f)


# -- host to tunnel --

cdef relay_flow *client_of(relay *r, relay_flow *association, const endpoint *key,
                           const endpoint *to) noexcept nogil:
    """The client flow found by `key`, made when there is none."""
    cdef uint32_t index = association.child
    cdef relay_flow *f
    cdef flow_tuple tuple
    while index != RELAY_NONE:
        f = &r.flows[index]
        if is_same(&f.target, key):
            return f
        index = f.child
    if association.children >= RELAY_CLIENTS:
        return NULL
    f = relay_take(r, RELAY_UDP_CLIENT)
    if f == NULL:
        return NULL
    tuple_to(&tuple, to)
    if ns_open_datagram(r.stack, &tuple, PROTOCOL_UDP, 0, relay_id(r, f), &f.handle) != NS_OK:
        relay_free(r, f)
        return NULL
    f.state = RELAY_OPEN
    f.target = key[0]
    f.parent = relay_id(r, association)
    f.child = association.child
    association.child = <uint32_t>(f - r.flows)
    association.children += 1
    return f


cdef bint find_name(relay *r, const uint8_t *data, uint32_t length, uint32_t association,
                    endpoint *to) noexcept nogil:
    """Fill in what the name in a header means; False where nothing can be sent now."""
    cdef const relay_name *known = names_find(
        &r.names, data + RELAY_NAME_OFFSET, data[RELAY_NAME_OFFSET - 1], clock_now_ns())
    if known == NULL:
        if names_hold(&r.names, association, data, length):
            r.asks = True
        return False
    to.family = known.family
    memcpy(to.address, known.address, 16)
    return known.family != 0


cdef uint32_t parse_socks(relay *r, const uint8_t *data, uint32_t length, uint32_t association,
                          endpoint *to) noexcept nogil:
    """Length of the header, 0 for what must be dropped: fragments, nonsense, no such name."""
    cdef uint32_t header
    if length < RELAY_NAME_OFFSET or data[0] | data[1] | data[2]:
        return 0
    memset(to, 0, sizeof(endpoint))
    if data[3] == SOCKS_NAME:
        header = <uint32_t>RELAY_NAME_OFFSET + data[RELAY_NAME_OFFSET - 1] + 2
        if header == RELAY_NAME_OFFSET + 2 or length < header:
            return 0
        to.port = load_be16(data + header - 2)
        if not find_name(r, data, length, association, to):
            return 0
        return header if is_host(to) else 0
    if data[3] == SOCKS_V4 and length >= SOCKS_V4_LEN:
        header = SOCKS_V4_LEN
        to.family = WT_AF_INET
    elif data[3] == SOCKS_V6 and length >= SOCKS_V6_LEN:
        header = SOCKS_V6_LEN
        to.family = WT_AF_INET6
    else:
        return 0
    memcpy(to.address, data + 4, header - 6)
    to.port = load_be16(data + header - 2)
    return header if is_host(to) else 0


cdef void from_client(relay *r, relay_flow *association, const endpoint *source,
                      const uint8_t *data, uint32_t length) noexcept nogil:
    cdef endpoint to
    cdef relay_flow *f
    cdef ns_datagram d
    cdef uint32_t header = 0
    if association.flags & RELAY_HAS_TARGET:
        f = client_of(r, association, source, &association.target)
    else:
        # Only who opened the association may use it (RFC 1928, 7).
        if memcmp(source.address, association.to.address, 16) != 0:
            return
        if not association.flags & RELAY_HAS_CLIENT:
            association.to.port = source.port
            association.flags |= RELAY_HAS_CLIENT
        if association.to.port != source.port:
            return
        header = parse_socks(r, data, length, relay_id(r, association), &to)
        if header == 0:
            return
        f = client_of(r, association, &to, &to)
    if f == NULL:
        return
    d.data = data + header
    d.len = length - header
    d.sequence = 0
    d.ttl = 0
    r.bytes_out += d.len
    ns_send_datagram(r.stack, f.handle, &d)


cdef void relay_udp_read(relay *r, relay_flow *f) noexcept nogil:
    cdef endpoint source
    cdef ns_datagram d
    cdef int _, n
    for _ in range(RELAY_TURN_DATAGRAMS):
        n = datagram_receive(f.fd, &source, r.datagram, sizeof(r.datagram))
        if n == -EAGAIN:
            return
        if n < 0:
            # The answer to something that was sent; the next call has the next one.
            if n == -ECONNREFUSED and f.kind == RELAY_UDP:
                ns_refuse_datagram(r.stack, f.handle, NS_REFUSE_PORT)
            continue
        if f.kind == RELAY_ASSOCIATION:
            from_client(r, f, &source, r.datagram, <uint32_t>n)
            continue
        d.data = r.datagram
        d.len = <uint32_t>n
        d.sequence = 0
        d.ttl = 0
        r.bytes_out += d.len
        ns_send_datagram(r.stack, f.handle, &d)
    relay_queue(r, f)


# -- wishes --

cdef int relay_forward_udp(relay *r, uint16_t port, const endpoint *to,
                           uint32_t *id) noexcept nogil:
    cdef relay_flow *f = relay_take(r, RELAY_UDP_LISTENER)
    cdef int result
    if f == NULL:
        return -ENOBUFS
    id[0] = relay_id(r, f)
    result = ns_listen(r.stack, PROTOCOL_UDP, NULL, port, 0, RELAY_LISTENER_USER | id[0], 0)
    if result < 0:
        relay_free(r, f)
        return -EADDRINUSE if result == NS_IN_USE else -ENOBUFS
    f.handle = <uint32_t>result
    f.to = to[0]
    return 0


cdef int relay_open_udp(relay *r, const endpoint *to, int fd, uint32_t *id) noexcept nogil:
    cdef relay_flow *f = relay_take(r, RELAY_UDP)
    cdef flow_tuple tuple
    cdef int error
    if f == NULL:
        return -ENOBUFS
    id[0] = relay_id(r, f)
    tuple_to(&tuple, to)
    if ns_open_datagram(r.stack, &tuple, PROTOCOL_UDP, 0, id[0], &f.handle) != NS_OK:
        relay_free(r, f)
        return -ENETUNREACH
    error = stream_watch(r.set, fd, id[0])
    if error:
        ns_close(r.stack, f.handle)
        relay_free(r, f)
        return error
    f.fd = fd
    f.state = RELAY_OPEN
    return 0


cdef void relay_learn_name(relay *r, const uint8_t *name, uint8_t length, const endpoint *address,
                           uint64_t until_ns) noexcept nogil:
    cdef const relay_held *held
    cdef relay_flow *association
    cdef endpoint client
    cdef uint16_t datagram_len = 0
    if address != NULL:
        names_learn(&r.names, name, length, <uint8_t>address.family, address.address, until_ns)
    else:
        names_learn(&r.names, name, length, 0, NULL, until_ns)
    while True:
        held = names_release(&r.names, name, length, &datagram_len)
        if held == NULL:
            return
        association = relay_find(r, held.association)
        if association != NULL and association.kind == RELAY_ASSOCIATION:
            client = association.to
            from_client(r, association, &client, held.data, datagram_len)


cdef int relay_associate(relay *r, const endpoint *local, const endpoint *target,
                         const endpoint *client, uint32_t *id) noexcept nogil:
    cdef relay_flow *f
    cdef int error, fd
    if r.associations >= <uint32_t>RELAY_ASSOCIATIONS:
        return -ENOBUFS
    fd = datagram_bind(local)
    if fd < 0:
        return fd
    f = relay_take(r, RELAY_ASSOCIATION)
    error = stream_watch(r.set, fd, relay_id(r, f)) if f != NULL else -ENOBUFS
    if error:
        stream_close(fd)
        if f != NULL:
            relay_free(r, f)
        return error
    r.associations += 1
    f.fd = fd
    f.state = RELAY_OPEN
    if target != NULL:
        f.target = target[0]
        f.flags |= RELAY_HAS_TARGET
    else:
        f.to = client[0]
        if client.port:
            f.flags |= RELAY_HAS_CLIENT
    id[0] = relay_id(r, f)
    return datagram_port(fd)
