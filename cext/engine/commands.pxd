# SPDX-License-Identifier: Apache-2.0
# What the native thread does when asked through the gate: each command takes the
# engine_core and its own argument struct, and returns 0 (or a port) or -errno.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.drops cimport drop_counters
from cext.engine.core cimport engine_core, engine_statistics
from cext.host.tun cimport tun, tun_statistics
from cext.host.udp cimport udp_statistics
from cext.wire.endpoint cimport endpoint
from cext.wireguard.device cimport wg_peer_status, wg_prefix

cdef enum:
    SNAPSHOT_PEERS = 32
    SNAPSHOT_PREFIXES = 512


# Which members of a peer_change are meant.
cdef enum:
    CHANGE_PRESHARED_KEY = 1
    CHANGE_ENDPOINT = 2
    CHANGE_KEEPALIVE = 4
    CHANGE_REPLACE_ALLOWED_IPS = 8
    CHANGE_UPDATE_ONLY = 16


cdef struct peer_change:
    uint32_t mask
    const uint8_t *public_key
    const uint8_t *preshared_key
    endpoint to
    uint16_t keepalive_s
    const wg_prefix *added
    size_t added_count
    const wg_prefix *removed
    size_t removed_count
    bint found


# A part of the device's state; `index` and `cursor` say where the next one goes on.
cdef struct snapshot:
    uint32_t index
    uint32_t cursor
    bint complete
    bint has_key
    uint8_t private_key[32]
    uint8_t public_key[32]
    uint16_t listen_port
    uint32_t fwmark
    uint32_t peer_count
    wg_peer_status peers[SNAPSHOT_PEERS]
    uint32_t prefix_count
    # Index into `peers` of the peer that each prefix belongs to.
    uint32_t owner[SNAPSHOT_PREFIXES]
    wg_prefix prefixes[SNAPSHOT_PREFIXES]
    # False: peers[0] is the one that the last part ended in.
    bint first_is_new


cdef struct counters:
    drop_counters *drops
    engine_statistics engine
    udp_statistics udp
    tun_statistics tun
    uint64_t events_lost
    uint64_t memory_bytes
    uint32_t udp_features
    uint32_t tun_features
    bint tun_is_open


ctypedef int (*command)(void *core, void *argument) noexcept nogil

cdef int command_stop(void *core, void *unused) noexcept nogil
cdef int command_up(void *core, void *unused) noexcept nogil
cdef int command_down(void *core, void *unused) noexcept nogil
cdef int command_set_listen_port(void *core, void *uint16_port) noexcept nogil
cdef int command_set_fwmark(void *core, void *uint32_mark) noexcept nogil
cdef int command_set_interface(void *core, void *name) noexcept nogil
cdef int command_source_changed(void *core, void *unused) noexcept nogil
# Takes the struct tun over and closes the one before, or does neither.
cdef int command_attach(void *core, void *opened_tun) noexcept nogil
cdef int command_detach(void *core, void *unused) noexcept nogil
cdef int command_set_mtu(void *core, void *uint32_mtu) noexcept nogil
# Fills a struct tun_link.
cdef int command_look(void *core, void *link) noexcept nogil
cdef int command_set_private_key(void *core, void *key_or_null) noexcept nogil
cdef int command_set_timestamp_floor(void *core, void *uint64_ns) noexcept nogil
# WG_ERROR_* instead of -errno.
cdef int command_set_peer(void *core, void *change) noexcept nogil
# These three return whether there is such a peer.
cdef int command_remove_peer(void *core, void *public_key) noexcept nogil
cdef int command_initiate(void *core, void *public_key) noexcept nogil
cdef int command_expire_session(void *core, void *public_key) noexcept nogil
cdef int command_remove_all_peers(void *core, void *unused) noexcept nogil
cdef int command_snapshot(void *core, void *part) noexcept nogil
cdef int command_counters(void *core, void *into) noexcept nogil
