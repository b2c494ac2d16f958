# SPDX-License-Identifier: Apache-2.0
from libc.stdint cimport uint64_t


cdef extern from "wireguard/replay.h" nogil:
    enum:
        REPLAY_WINDOW

    struct replay_window:
        uint64_t edge

    bint replay_accept(replay_window *w, uint64_t counter)
