# SPDX-License-Identifier: Apache-2.0
"""The AEAD batches of the engine, spread over the workers when they are large enough."""

from cext.crypto.crypto cimport aead_job, aead_open_batch, aead_seal_batch, crypto_init
from cext.engine.core cimport engine_core
from cext.host.thread cimport workers_run

if crypto_init() != 0:
    raise RuntimeError("a known answer of the cryptography failed; nothing may start")

# Waking a thread costs about as much as sealing this many packets.
cdef enum:
    JOBS_PER_PART = 24


cdef struct split:
    aead_job *jobs
    unsigned int count
    unsigned int parts


cdef void seal_part(void *argument, unsigned int part) noexcept nogil:
    cdef split *s = <split *>argument
    cdef unsigned int first = s.count * part // s.parts
    aead_seal_batch(s.jobs + first, s.count * (part + 1) // s.parts - first)


cdef void open_part(void *argument, unsigned int part) noexcept nogil:
    cdef split *s = <split *>argument
    cdef unsigned int first = s.count * part // s.parts
    aead_open_batch(s.jobs + first, s.count * (part + 1) // s.parts - first)


cdef inline void prepare(split *s, engine_core *core, aead_job *jobs,
                         unsigned int n) noexcept nogil:
    s.jobs = jobs
    s.count = n
    s.parts = n // JOBS_PER_PART
    if s.parts > core.workers.count + 1:
        s.parts = core.workers.count + 1


cdef void seal_batch(engine_core *core, aead_job *jobs, unsigned int n) noexcept nogil:
    cdef split s
    core.statistics.seal_batches += 1
    prepare(&s, core, jobs, n)
    if s.parts < 2:
        aead_seal_batch(jobs, n)
    else:
        workers_run(&core.workers, seal_part, &s, s.parts)


cdef void open_batch(engine_core *core, aead_job *jobs, unsigned int n) noexcept nogil:
    cdef split s
    core.statistics.open_batches += 1
    prepare(&s, core, jobs, n)
    if s.parts < 2:
        aead_open_batch(jobs, n)
    else:
        workers_run(&core.workers, open_part, &s, s.parts)
