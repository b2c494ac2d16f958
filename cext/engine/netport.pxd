# SPDX-License-Identifier: Apache-2.0
# The netstack as the second inner port of the engine.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.drops cimport drop_counters
from cext.engine.core cimport engine_core
from cext.engine.relay_table cimport relay


# Reserve stack and relay within `bytes`; any thread. NULL: that is too little.
cdef relay *netport_create(engine_core *core, size_t bytes, uint32_t mtu) noexcept nogil
cdef void netport_destroy(relay *r) noexcept nogil
cdef size_t netport_memory_bytes(const relay *r) noexcept nogil
# Add what the stack dropped to the engine's counters.
cdef void netport_add_drops(const relay *r, drop_counters *into) noexcept nogil

# Native thread. Attach takes the relay over; detach gives it back, or NULL.
cdef int netport_attach(engine_core *core, relay *r) noexcept nogil
cdef relay *netport_detach(engine_core *core) noexcept nogil
# 16 bytes each, v4 as ::ffff:a.b.c.d; those of before that are not among them go.
cdef int netport_set_addresses(engine_core *core, const uint8_t *addresses,
                               uint32_t count) noexcept nogil
# -EMSGSIZE: larger than what the blocks were made for.
cdef int netport_set_mtu(engine_core *core, uint32_t mtu) noexcept nogil
