# SPDX-License-Identifier: Apache-2.0
# Life, configuration and observation of a device; the theory is in device.h.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.drops cimport drop_counters
from cext.wire.endpoint cimport endpoint
# The layouts of wg_device, wg_peer and wg_keypair are nobody's business outside this room.
from cext.wireguard.state cimport (
    WG_ERROR_LIMIT,
    WG_ERROR_NO_MEMORY,
    WG_ERROR_OWN_KEY,
    WG_ERROR_RANGE,
    WG_EVENT_ENDPOINT,
    WG_EVENT_HANDSHAKE,
    WG_EVENT_HANDSHAKE_GIVEN_UP,
    WG_EVENT_TIMESTAMP_FLOOR,
    WG_HEADER_LEN,
    WG_IN_CONSUMED,
    WG_IN_DELIVER,
    WG_IN_DROPPED,
    WG_IN_OPEN,
    WG_KEEPALIVE_LEN,
    WG_KEY_LEN,
    WG_MAX_STAGED_PER_PEER,
    WG_NEVER,
    WG_OUT_DROPPED,
    WG_OUT_READY,
    WG_OUT_STAGE,
    WG_TRAILER_LEN,
    WG_TRANSMIT_MAX,
    wg_device,
    wg_event,
    wg_inbound,
    wg_keypair,
    wg_limits,
    wg_outbound,
    wg_peer,
    wg_peer_status,
    wg_prefix,
    wg_random_fn,
    wg_transmit,
)


# -- life --
# NULL without memory. The device is down and has no private key.
cdef wg_device *wg_device_create(const wg_limits *limits, wg_random_fn random,
                                 void *random_ctx) noexcept nogil
# Erases every key. NULL is legal.
cdef void wg_device_destroy(wg_device *dev) noexcept nogil
# Up: peers with keepalive start. Down: sessions, staged packets and queued
# messages are forgotten, nothing is sent or delivered; configuration stays.
cdef void wg_device_up(wg_device *dev, uint64_t now_ns) noexcept nogil
cdef void wg_device_down(wg_device *dev) noexcept nogil

# -- ahead of need --
# Whether something of a coming handshake can be made already, and making one such
# thing (one X25519): what a caller with nothing to do may spend its time on. Without
# it all works, handshakes a little slower.
cdef bint wg_wants_ahead(wg_device *dev) noexcept nogil
cdef void wg_make_ahead(wg_device *dev) noexcept nogil

# -- time --
cdef void wg_device_set_unix_time(wg_device *dev, uint64_t now_ns,
                                  uint64_t unix_ns) noexcept nogil
# What the last run saved; initiations carry at least this time.
cdef void wg_device_set_timestamp_floor(wg_device *dev, uint64_t unix_ns) noexcept nogil

# -- configuration --
# 32 bytes; NULL or all zero removes it. The key that is already set changes
# nothing. Otherwise sessions are forgotten and a peer with our own public key is
# removed.
cdef void wg_device_set_private_key(wg_device *dev, const uint8_t *key) noexcept nogil
# False when there is none. Either pointer may be NULL.
cdef bint wg_device_keys(const wg_device *dev, uint8_t *private_key,
                         uint8_t *public_key) noexcept nogil

cdef wg_peer *wg_peer_find(wg_device *dev, const uint8_t *public_key) noexcept nogil
# Finds or adds. NULL: *error says why (it may be NULL).
cdef wg_peer *wg_peer_add(wg_device *dev, const uint8_t *public_key, int *error) noexcept nogil
cdef void wg_peer_remove(wg_device *dev, wg_peer *peer) noexcept nogil
cdef void wg_peer_remove_all(wg_device *dev) noexcept nogil
# NULL or zeros removes it. Takes effect at the next handshake; the session stays.
cdef void wg_peer_set_preshared_key(wg_device *dev, wg_peer *peer,
                                    const uint8_t *key) noexcept nogil
# Where to send next; roaming still follows the peer from there.
cdef void wg_peer_set_endpoint(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                               const endpoint *to) noexcept nogil
# Switching it on, when up, sends a keepalive at once.
cdef void wg_peer_set_keepalive(wg_device *dev, uint64_t now_ns, wg_peer *peer,
                                uint16_t keepalive_s) noexcept nogil
# 0 or WG_ERROR_*. Host bits are ignored. A prefix that another peer has moves here.
cdef int wg_peer_add_allowed_ip(wg_device *dev, wg_peer *peer,
                                const wg_prefix *prefix) noexcept nogil
# False when this peer does not have exactly this prefix.
cdef bint wg_peer_remove_allowed_ip(wg_device *dev, wg_peer *peer,
                                    const wg_prefix *prefix) noexcept nogil
cdef void wg_peer_remove_allowed_ips(wg_device *dev, wg_peer *peer) noexcept nogil
# Start a handshake now, unless an initiation left less than REKEY_TIMEOUT ago.
cdef void wg_peer_initiate(wg_device *dev, uint64_t now_ns, wg_peer *peer) noexcept nogil
# Make the next packet start a handshake; what the peer still sends is accepted.
cdef void wg_peer_expire_session(wg_device *dev, wg_peer *peer) noexcept nogil
# The sticky source address is gone: let routing choose. For one peer, or for all.
cdef void wg_peer_clear_source(wg_device *dev, wg_peer *peer) noexcept nogil
cdef void wg_device_clear_sources(wg_device *dev) noexcept nogil

# -- observation --
cdef uint32_t wg_peer_count(const wg_device *dev) noexcept nogil
# In the order they were added; NULL ends.
cdef wg_peer *wg_peer_first(const wg_device *dev) noexcept nogil
cdef wg_peer *wg_peer_after(const wg_peer *peer) noexcept nogil
cdef void wg_peer_get_status(const wg_device *dev, uint64_t now_ns, const wg_peer *peer,
                             wg_peer_status *status) noexcept nogil
# Start with *cursor = 0; false ends. No order is promised.
cdef bint wg_peer_next_allowed_ip(const wg_device *dev, const wg_peer *peer,
                                  uint32_t *cursor, wg_prefix *prefix) noexcept nogil
cdef const uint8_t *wg_peer_public_key(const wg_peer *peer) noexcept nogil
# Never 0: what lies above keeps fairness by it.
cdef uint32_t wg_peer_number(const wg_peer *peer) noexcept nogil
cdef const endpoint *wg_peer_endpoint(const wg_peer *peer) noexcept nogil
cdef bint wg_next_event(wg_device *dev, wg_event *event) noexcept nogil
# The caller may count its own drops in the same table.
cdef drop_counters *wg_drops(wg_device *dev) noexcept nogil
# Bytes reserved, peers included.
cdef size_t wg_memory_bytes(const wg_device *dev) noexcept nogil
