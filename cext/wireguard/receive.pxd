# SPDX-License-Identifier: Apache-2.0
# Datagrams in; the theory and the batch rule are in device.h.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.crypto.crypto cimport aead_job
from cext.wire.endpoint cimport endpoint
from cext.wireguard.state cimport wg_device, wg_inbound


# WG_IN_OPEN: `job` is filled (decrypts in place); put it into a batch, then call
# finish. WG_IN_CONSUMED, WG_IN_DROPPED: done with it. `datagram` may lie at any
# alignment; `source` must stay readable until finish.
cdef int wg_receive_prepare(wg_device *dev, uint64_t now_ns, uint8_t *datagram, size_t length,
                            const endpoint *source, wg_inbound *inbound,
                            aead_job *job) noexcept nogil
# In the order of arrival, after the batch. WG_IN_DELIVER, _CONSUMED or _DROPPED.
cdef int wg_receive_finish(wg_device *dev, uint64_t now_ns, wg_inbound *inbound) noexcept nogil
# Handle at most `budget` queued handshake messages (each up to four Diffie-Hellman
# operations); return how many are left.
cdef uint32_t wg_process_handshakes(wg_device *dev, uint64_t now_ns,
                                    uint32_t budget) noexcept nogil
