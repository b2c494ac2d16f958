# SPDX-License-Identifier: Apache-2.0
# Datagrams between the netstack and sockets of the host. Native thread only.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.engine.relay_table cimport relay, relay_flow
from cext.netstack.layout cimport ns_datagram, ns_event
from cext.wire.endpoint cimport endpoint


# The stack's callback; `context` is a struct relay.
cdef void relay_datagram(void *context, uint32_t handle, uint64_t user,
                         const ns_datagram *d) noexcept nogil
# An event of a UDP flow.
cdef void relay_udp_event(relay *r, const ns_event *event) noexcept nogil
# Read what a descriptor has, a bounded amount; queued again when there is more.
cdef void relay_udp_read(relay *r, relay_flow *f) noexcept nogil
# Open a UDP port in the tunnel; its datagrams go to `to` on the host.
cdef int relay_forward_udp(relay *r, uint16_t port, const endpoint *to,
                           uint32_t *id) noexcept nogil
# Bind `local`; return its port. `target` in the tunnel, or NULL for the SOCKS client
# at the address (and port, if not 0) of `client`.
cdef int relay_associate(relay *r, const endpoint *local, const endpoint *target,
                         const endpoint *client, uint32_t *id) noexcept nogil
# Join a UDP flow to `to` in the tunnel and a datagram socket, which is ours if this gives 0.
cdef int relay_open_udp(relay *r, const endpoint *to, int fd, uint32_t *id) noexcept nogil
# What a name of SOCKS datagrams means; `address` NULL, of none: it has none. What waited
# for it is sent.
cdef void relay_learn_name(relay *r, const uint8_t *name, uint8_t length, const endpoint *address,
                           uint64_t until_ns) noexcept nogil
# End a forward, whose flows stay, or an association with all of its flows.
cdef void relay_udp_close(relay *r, relay_flow *f) noexcept nogil
