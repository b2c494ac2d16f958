# SPDX-License-Identifier: Apache-2.0
# Which inner addresses can be one host.
from libc.stdint cimport uint8_t


cdef extern from "wire/special.h" nogil:
    bint address_is_host(uint8_t family, const uint8_t *address)
