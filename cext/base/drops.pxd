# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint64_t


cdef extern from "base/drops.h" nogil:
    # An int in Cython, so that reasons can be added in drops.h alone; import
    # the DROP_* constants you use from the header where you use them.
    ctypedef int drop_reason "enum drop_reason"
    enum:
        DROP_REASON_COUNT
        DROP_NONE

    struct drop_counters:
        uint64_t count[1]  # really DROP_REASON_COUNT

    const char *drop_reason_name(drop_reason reason)
    void drop(drop_counters *c, drop_reason reason)
