# SPDX-License-Identifier: Apache-2.0
# Inner packets to datagrams. A packet is in the area, unsealed, until outbound_flush().
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.engine.core cimport engine_core
from cext.wire.vnet cimport vnet_header


# Take one packet or super-packet of an inner port; `packet` may be written to and
# is free again on return. May flush. `header` is zero for a finished packet.
cdef void outbound_packet(engine_core *core, uint64_t now_ns, uint8_t *packet,
                          uint32_t length, const vnet_header *header) noexcept nogil
# What waited for a session and now has one.
cdef void outbound_staged(engine_core *core, uint64_t now_ns) noexcept nogil
# Seal and send everything.
cdef void outbound_flush(engine_core *core, uint64_t now_ns) noexcept nogil
# Handshakes, cookies and keepalives of the device itself.
cdef void outbound_transmits(engine_core *core, uint64_t now_ns) noexcept nogil
