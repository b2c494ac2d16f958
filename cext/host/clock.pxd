# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint64_t


cdef extern from "host/clock.h" nogil:
    uint64_t clock_now_ns()
    uint64_t clock_unix_ns()
    int entropy_fill(void *out, size_t length)
