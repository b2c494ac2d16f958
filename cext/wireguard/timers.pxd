# SPDX-License-Identifier: Apache-2.0
# When a device wants to be woken.
from libc.stdint cimport uint64_t

from cext.wireguard.device cimport wg_device


# When to call wg_advance() next; WG_NEVER when nothing is pending. May be early,
# is never late.
cdef uint64_t wg_poll_at(const wg_device *dev) noexcept nogil
# Run what is due, release removed peers. Then drain wg_next_transmit().
cdef void wg_advance(wg_device *dev, uint64_t now_ns) noexcept nogil
