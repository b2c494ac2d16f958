# SPDX-License-Identifier: Apache-2.0
# The timer wheel; wheel.h has the theory of operation.
from libc.stdint cimport uint32_t, uint64_t

from cext.netstack.layout cimport wheel


cdef int wheel_create(wheel *w, uint32_t timers, uint64_t now_ms) noexcept nogil
cdef void wheel_destroy(wheel *w) noexcept nogil
# Arm, or move, timer `index` to `due_ms`.
cdef void wheel_arm(wheel *w, uint32_t index, uint64_t due_ms) noexcept nogil
cdef void wheel_cancel(wheel *w, uint32_t index) noexcept nogil
# A timer that is due at `now_ms`, disarmed; NS_NIL when there is none (left).
cdef uint32_t wheel_pop(wheel *w, uint64_t now_ms) noexcept nogil
# No timer is due before this; WHEEL_NEVER when none is armed.
cdef uint64_t wheel_next(const wheel *w) noexcept nogil
