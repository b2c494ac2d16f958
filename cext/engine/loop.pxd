# SPDX-License-Identifier: Apache-2.0
# The native thread's main function and what tells its descriptors apart.
cdef enum:
    TAG_UDP_V4 = 0
    TAG_UDP_V6 = 1
    TAG_INNER = 2
    TAG_COMMAND = 3
    TAG_RELAY = 4


# `argument` is a struct engine_core; returns when core.stopping is set.
cdef void engine_main(void *argument) noexcept nogil
