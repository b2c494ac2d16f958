# SPDX-License-Identifier: Apache-2.0
# Bytes between the netstack and sockets of the host. Called by the native thread only;
# functions that return int give 0, an id, or -errno.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.engine.relay_table cimport relay, relay_body
from cext.netstack.layout cimport flow_tuple, ns_datagram, ns_part
from cext.wire.endpoint cimport endpoint


# -- driver --
# Look at the descriptors if `ready`, then at flows with work left. True: some have more.
cdef bint relay_sockets(relay *r, bint ready) noexcept nogil
# Take all events of the stack.
cdef void relay_events(relay *r) noexcept nogil

# -- the stack's callbacks; `context` is a struct relay --
cdef uint32_t relay_tcp_data(void *context, uint32_t handle, uint64_t user,
                             const uint8_t *data, uint32_t length) noexcept nogil
cdef uint32_t relay_tcp_parts(void *context, uint32_t handle, uint64_t user,
                              const ns_part *parts, uint32_t count) noexcept nogil

cdef int relay_admit(void *context, const flow_tuple *tuple, uint32_t protocol,
                     uint32_t peer) noexcept nogil
# Whether a TCP port of the tunnel is forwarded.
cdef bint relay_listens(relay *r, uint16_t port) noexcept nogil

# -- wishes --
# Begin a connection into the tunnel; EVENT_DIALLED tells that it ended.
cdef int relay_dial(relay *r, const endpoint *to, uint32_t *id) noexcept nogil
# The next dial that ended: its id, and its errno or 0. False: none is left.
cdef bint relay_dialled(relay *r, uint32_t *id, int *error) noexcept nogil
# Join a dialled flow and a descriptor, which is ours from here on if this returns 0; else the
# dialled flow is gone. `early` is malloc()ed, or NULL, and ours in the same case. With `body`,
# not NULL, only the request passes whose head are the first `head_len` bytes of `early`.
cdef int relay_splice(relay *r, uint32_t id, int fd, uint8_t *early, uint32_t early_len,
                      const relay_body *body, uint32_t head_len) noexcept nogil
# Open a port in the tunnel; what connects there is connected to `to` on the host.
cdef int relay_forward_tcp(relay *r, uint16_t port, const endpoint *to,
                           uint32_t *id) noexcept nogil
# End a flow (reset), or a forward whose flows stay.
cdef int relay_close(relay *r, uint32_t id) noexcept nogil
