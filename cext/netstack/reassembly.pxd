# SPDX-License-Identifier: Apache-2.0
# Datagrams from their fragments, within bounds.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.netstack.layout cimport netstack
from cext.wire.ip cimport ip_info


# Take a fragment. The length of the whole packet, which then stands at
# s.reassembled without fragment header and options, or 0.
cdef uint32_t reassembly_input(netstack *s, const uint8_t *packet, const ip_info *info,
                               uint32_t peer) noexcept nogil
# Drop what is too old.
cdef void reassembly_poll(netstack *s) noexcept nogil
# When reassembly_poll() has something to do, in ms; WHEEL_NEVER when nothing waits.
cdef uint64_t reassembly_poll_at(const netstack *s) noexcept nogil
