# SPDX-License-Identifier: Apache-2.0
# Datagrams to inner packets.
from libc.stdint cimport uint64_t

from cext.engine.core cimport engine_core


# Take what one of the sockets (enum udp_family) has, at most one receive call's
# worth. True when there may be more.
cdef bint inbound_round(engine_core *core, uint64_t now_ns, int family) noexcept nogil
