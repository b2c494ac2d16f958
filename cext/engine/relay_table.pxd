# SPDX-License-Identifier: Apache-2.0
# The table of relayed flows; the theory is in relay.h.
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.engine.core cimport event_ring
from cext.netstack.layout cimport netstack, ns_limits
from cext.wire.endpoint cimport endpoint


cdef extern from "engine/relay_names.h" nogil:
    enum:
        RELAY_NAME_OFFSET

    struct relay_name:
        uint8_t address[16]
        uint8_t family

    struct relay_held:
        uint32_t association
        uint8_t data[2048]

    struct relay_names:
        pass

    const relay_name *names_find(const relay_names *n, const uint8_t *name, uint8_t length,
                                 uint64_t now_ns)
    bint names_hold(relay_names *n, uint32_t association, const uint8_t *data, uint32_t length)
    const uint8_t *names_next_asked(relay_names *n)
    void names_learn(relay_names *n, const uint8_t *name, uint8_t length, uint8_t family,
                     const uint8_t *address, uint64_t until_ns)
    const relay_held *names_release(relay_names *n, const uint8_t *name, uint8_t length,
                                    uint16_t *datagram_len)
    void names_forget(relay_names *n)


cdef extern from "engine/relay_body.h" nogil:
    enum:
        BODY_ANY
        BODY_ENDED
        BODY_BROKEN

    struct relay_body:
        uint8_t kind

    void body_init(relay_body *b, bint chunked, uint64_t length)
    uint32_t body_take(relay_body *b, const uint8_t *data, uint32_t len)


cdef extern from "engine/relay.h" nogil:
    const uint32_t RELAY_NONE
    const uint64_t RELAY_LISTENER_USER

    enum:
        RELAY_FREE
        RELAY_TCP
        RELAY_TCP_LISTENER
        RELAY_UDP_LISTENER
        RELAY_UDP
        RELAY_UDP_CLIENT
        RELAY_ASSOCIATION
        RELAY_CLOSED
        RELAY_DIALLING
        RELAY_DIALLED
        RELAY_FAILED
        RELAY_CONNECTING
        RELAY_ACCEPTING
        RELAY_OPEN
        RELAY_TURN_BYTES
        RELAY_LISTENERS
        RELAY_ASSOCIATIONS
        RELAY_EARLY_BYTES
        RELAY_DATAGRAM_BYTES
        RELAY_SOCKS_HEADER
        RELAY_NEW_UDP
        RELAY_CLIENTS
        RELAY_TURN_DATAGRAMS
        RELAY_QUEUED
        RELAY_READABLE
        RELAY_FIN_SENT
        RELAY_FIN_SEEN
        RELAY_FIN_GIVEN
        RELAY_BROKEN
        RELAY_HAS_TARGET
        RELAY_HAS_CLIENT
        RELAY_ANSWERED

    struct relay_flow:
        uint32_t handle
        int fd
        uint32_t parent
        uint32_t child
        uint16_t children
        uint8_t kind
        uint8_t state
        uint16_t flags
        int16_t error
        endpoint to
        endpoint target
        uint8_t *early
        uint32_t early_len
        uint32_t early_at
        relay_body body

    struct relay:
        netstack *stack
        event_ring *events
        int set
        relay_flow *flows
        uint32_t count
        uint32_t finished_head
        uint32_t finished_tail
        uint32_t ready_head
        bint announced
        bint asks
        uint32_t space
        uint32_t used
        uint32_t *requests
        uint32_t request_count
        uint32_t listeners[64]
        uint32_t listener_count
        uint32_t fresh[64]
        uint32_t fresh_count
        uint32_t associations
        relay_names names
        bint sending
        uint32_t deferred_len
        uint8_t deferred[1280]
        uint8_t datagram[65558]
        uint64_t bytes_in
        uint64_t bytes_out

    relay *relay_create(const ns_limits *limits, event_ring *events)
    void relay_destroy(relay *r)
    size_t relay_memory_bytes(const relay *r)
    relay_flow *relay_take(relay *r, uint8_t kind)
    void relay_free(relay *r, relay_flow *f)
    relay_flow *relay_find(relay *r, uint32_t id)
    uint32_t relay_id(const relay *r, const relay_flow *f)
    void relay_queue(relay *r, relay_flow *f)
    relay_flow *relay_next_ready(relay *r)
    void relay_finish(relay *r, relay_flow *f)
    relay_flow *relay_next_finished(relay *r)
