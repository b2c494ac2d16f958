# SPDX-License-Identifier: Apache-2.0
# Faces of single parts; not part of the firmware.
from cext.netstack.layout cimport wheel


cdef class Wheel:
    cdef wheel w
