# SPDX-License-Identifier: Apache-2.0
# What a driver and a consumer of the stack call; see "theory of operation" in stack.h.
#
# One thread calls these. `now_ns` never decreases. A handle belongs to its
# consumer from the event or call that gave it until ns_close() or ns_abort().
# Functions returning int give NS_OK or a negative ns_result.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.netstack.layout cimport (
    flow_tuple, netstack, ns_datagram, ns_event, ns_host, ns_limits, ns_packet, ns_space,
)


# -- life --
# Fill in limits for a machine with so much RAM: 64 MB gives a slab of 4 MB, 1024 TCP flows.
cdef void ns_default_limits(ns_limits *limits, uint64_t ram_bytes,
                            uint32_t mtu_bytes) noexcept nogil
# NULL when memory is short or a limit cannot be kept; reserves everything.
cdef netstack *ns_create(const ns_limits *limits, const ns_host *host,
                         uint64_t now_ns) noexcept nogil
cdef void ns_destroy(netstack *s) noexcept nogil
# 16 bytes, v4 as ::ffff:a.b.c.d. The stack answers ping there and finds listeners.
cdef int ns_add_address(netstack *s, const uint8_t *address) noexcept nogil
cdef int ns_remove_address(netstack *s, const uint8_t *address) noexcept nogil

# Flows that are open learn of a smaller one by "packet too big". NS_INVALID: beyond what
# the blocks were made for, or too little.
cdef int ns_set_mtu(netstack *s, uint32_t mtu_bytes) noexcept nogil

# -- driver --
# One IP packet from the tunnel. `peer` is any number: fairness is kept per peer.
cdef void ns_input(netstack *s, uint64_t now_ns, const uint8_t *packet, uint32_t length,
                   uint32_t peer) noexcept nogil
# Behind the last packet of a batch, where host.tcp_parts() is set: gives it what is held.
cdef void ns_input_end(netstack *s) noexcept nogil
cdef void ns_poll(netstack *s, uint64_t now_ns) noexcept nogil
# now_ns when packets or timers are due at once, UINT64_MAX when nothing ever is.
cdef uint64_t ns_poll_at(netstack *s) noexcept nogil
# At most NS_BATCH_MAX packets, valid until the next call of a driver function.
cdef uint32_t ns_next_packets(netstack *s, uint64_t now_ns, ns_packet *out,
                              uint32_t n) noexcept nogil
cdef bint ns_next_event(netstack *s, ns_event *out) noexcept nogil

# -- opening --
# `local` NULL means every address of ours. The index of the listener, or a result below 0.
cdef int ns_listen(netstack *s, uint32_t protocol, const uint8_t *local, uint16_t port,
                   uint16_t backlog, uint64_t user, uint32_t receive_space) noexcept nogil
cdef int ns_unlisten(netstack *s, uint32_t listener) noexcept nogil
# A local address of zero takes our first of the family, port 0 a random free one.
cdef int ns_connect(netstack *s, const flow_tuple *tuple, uint32_t peer, uint64_t user,
                    uint32_t receive_space, uint32_t *handle) noexcept nogil
# Answer a request of NS_EVENT_SYN; its handle ends here, the flow gets its own.
cdef int ns_accept(netstack *s, uint32_t request, uint64_t user, uint32_t receive_space,
                   uint32_t *handle) noexcept nogil
cdef int ns_refuse(netstack *s, uint32_t request, uint32_t refusal) noexcept nogil
# `protocol` UDP, ICMP or ICMPv6.
cdef int ns_open_datagram(netstack *s, const flow_tuple *tuple, uint32_t protocol, uint32_t peer,
                          uint64_t user, uint32_t *handle) noexcept nogil

# -- using --
cdef int ns_tuple(netstack *s, uint32_t handle, flow_tuple *out) noexcept nogil
cdef int ns_set_user(netstack *s, uint32_t handle, uint64_t user) noexcept nogil
# How many bytes host.tcp_data() would take now; what it takes is deducted by the stack.
cdef int ns_set_receive_space(netstack *s, uint32_t handle, uint32_t space) noexcept nogil
cdef int ns_set_user_timeout(netstack *s, uint32_t handle, uint16_t seconds) noexcept nogil
cdef int ns_set_keepalive(netstack *s, uint32_t handle, uint16_t seconds) noexcept nogil
cdef int ns_set_nagle(netstack *s, uint32_t handle, bint on) noexcept nogil
# Places to read into, at most n; how many were filled in. 0: wait for NS_EVENT_WRITABLE.
cdef int ns_send_space(netstack *s, uint32_t handle, ns_space *out, uint32_t n) noexcept nogil
# Queue the first `length` bytes of what ns_send_space() gave; the rest goes back.
cdef int ns_send_commit(netstack *s, uint32_t handle, uint32_t length) noexcept nogil
# Copying; the number of bytes taken.
cdef int ns_send(netstack *s, uint32_t handle, const uint8_t *data,
                 uint32_t length) noexcept nogil
# Parked bytes, copied; 0 when there are none.
cdef int ns_recv(netstack *s, uint32_t handle, uint8_t *out, uint32_t length) noexcept nogil
cdef int ns_send_datagram(netstack *s, uint32_t handle, const ns_datagram *d) noexcept nogil
# Tell the tunnel's side why its datagrams go nowhere, as an enum ns_refusal.
cdef int ns_refuse_datagram(netstack *s, uint32_t handle, uint32_t refusal) noexcept nogil

# -- closing --
# Half-close: a FIN behind what was queued.
cdef int ns_shutdown(netstack *s, uint32_t handle) noexcept nogil
# Give the handle back: FIN behind what was queued, RST if bytes were never taken.
cdef int ns_close(netstack *s, uint32_t handle) noexcept nogil
# Give the handle back with an RST.
cdef int ns_abort(netstack *s, uint32_t handle) noexcept nogil
