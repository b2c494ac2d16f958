# SPDX-License-Identifier: Apache-2.0
# The class behind engine.pyi, for userspace.pyx.
from libc.stdint cimport uint32_t

from cext.base.drops cimport drop_counters
from cext.engine.commands cimport command, counters, snapshot
from cext.engine.core cimport engine_core
from cext.host.tun cimport tun
from cext.wire.endpoint cimport endpoint


cdef int fill_endpoint(endpoint *to, object given) except -1


cdef class Engine:
    cdef engine_core *core
    cdef readonly int event_fd
    cdef uint32_t threads
    # Held by what changes peers, and by a status() of several parts.
    cdef object configuring
    cdef bint started
    cdef bint stopped

    cdef int make_device(self, size_t limit, int mtu) except -1
    cdef void halt(self) noexcept
    cdef int execute(self, command run, void *argument) except? -4096
    cdef int checked(self, command run, void *argument, object name=*) except -1
    cdef object attach(self, tun *opened, str name, bint adopted)
    cdef object collect(self, snapshot *part)
    cdef drop_counters *read_counters(self, counters *into) except NULL
