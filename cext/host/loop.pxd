# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport int64_t, uint32_t


cdef extern from "host/loop.h" nogil:
    enum:
        LOOP_READABLE
        LOOP_WRITABLE
        LOOP_FAILED
        LOOP_EVENTS_MAX

    struct loop_event:
        uint32_t tag
        uint32_t flags

    int wake_open(int *wake)
    void wake_close(int *wake)
    void wake_signal(int wake)
    void wake_clear(int wake)
    int loop_open(int *loop)
    void loop_close(int *loop)
    int loop_watch(int loop, int fd, uint32_t tag, bint writable_too)
    void loop_forget(int loop, int fd)
    int loop_wait(int loop, loop_event *events, int64_t timeout_ns)
