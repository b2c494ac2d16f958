# SPDX-License-Identifier: Apache-2.0
# Sealing and opening many packets, on as many threads as there are.
from cext.crypto.crypto cimport aead_job
from cext.engine.core cimport engine_core


# At most AEAD_BATCH_MAX jobs; all are done on return.
cdef void seal_batch(engine_core *core, aead_job *jobs, unsigned int n) noexcept nogil
cdef void open_batch(engine_core *core, aead_job *jobs, unsigned int n) noexcept nogil
