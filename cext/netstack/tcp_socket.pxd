# SPDX-License-Identifier: Apache-2.0
# What a consumer does with a TCP flow.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport flow_tuple, netstack, ns_space, tcp_flow


cdef int socket_connect(netstack *s, const flow_tuple *tuple, uint32_t peer, uint64_t user,
                        uint32_t receive_space, uint32_t *handle) noexcept nogil
cdef int socket_space(netstack *s, tcp_flow *t, uint32_t handle, ns_space *out,
                      uint32_t n) noexcept nogil
cdef int socket_commit(netstack *s, tcp_flow *t, uint32_t handle,
                       uint32_t length) noexcept nogil
cdef int socket_send(netstack *s, tcp_flow *t, uint32_t handle, const uint8_t *data,
                     uint32_t length) noexcept nogil
cdef int socket_shutdown(netstack *s, tcp_flow *t) noexcept nogil
cdef int socket_close(netstack *s, tcp_flow *t) noexcept nogil
cdef int socket_abort(netstack *s, tcp_flow *t) noexcept nogil
# Blocks that were lent and not used go back.
cdef void socket_return_space(netstack *s) noexcept nogil
# The slab has room again: wake who was refused.
cdef void socket_wake_starved(netstack *s) noexcept nogil
