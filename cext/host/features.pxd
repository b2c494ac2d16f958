# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint32_t


cdef extern from "host/features.h" nogil:
    enum:
        HOST_FEATURE_COUNT
        HOST_VNET_HDR
        HOST_TSO
        HOST_USO
        HOST_GSO_MAX
        HOST_UDP_GSO
        HOST_UDP_GRO
        HOST_MMSG
        HOST_PKTINFO
        HOST_IPV6
        HOST_ALL_FEATURES

    const char *host_feature_name(unsigned int index)
    uint32_t host_probe(uint32_t wanted)
