# SPDX-License-Identifier: Apache-2.0
# Every structure of this room; meanings are in the headers. Users take what device.pxd names.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.drops cimport drop_counters
from cext.crypto.crypto cimport aead_job
from cext.wire.endpoint cimport endpoint
from cext.wireguard.replay cimport replay_window


cdef extern from "wireguard/device.h" nogil:
    enum:
        WG_KEY_LEN
        WG_HEADER_LEN
        WG_TRAILER_LEN
        WG_KEEPALIVE_LEN
        WG_TRANSMIT_MAX
        WG_MAX_STAGED_PER_PEER

        WG_ERROR_NO_MEMORY
        WG_ERROR_LIMIT
        WG_ERROR_OWN_KEY
        WG_ERROR_RANGE

        WG_IN_DROPPED
        WG_IN_CONSUMED
        WG_IN_OPEN
        WG_IN_DELIVER

        WG_OUT_DROPPED
        WG_OUT_STAGE
        WG_OUT_READY

        WG_EVENT_HANDSHAKE
        WG_EVENT_HANDSHAKE_GIVEN_UP
        WG_EVENT_ENDPOINT
        WG_EVENT_TIMESTAMP_FLOOR

    uint64_t WG_NEVER

    ctypedef void (*wg_random_fn)(void *ctx, uint8_t *out, size_t length) noexcept nogil

    struct wg_limits:
        uint32_t max_peers
        uint32_t max_allowed_ips
        uint32_t max_staged_packets
        uint32_t staged_packet_bytes
        uint32_t handshake_queue
        uint32_t handshake_rate
        uint32_t ratelimiter_entries
        uint32_t outbox
        uint32_t events
        uint64_t build_unix_ns
        uint64_t floor_step_ns

    struct wg_inbound:
        wg_peer *peer
        wg_keypair *keypair
        const aead_job *job
        const endpoint *source "from"
        uint8_t *payload
        uint64_t counter
        uint32_t index
        uint32_t length "len"

    struct wg_outbound:
        const endpoint *endpoint
        uint32_t length "len"

    struct wg_transmit:
        endpoint to
        uint32_t length "len"
        wg_peer *peer
        uint8_t data[148]

    struct wg_event:
        uint32_t kind
        uint8_t public_key[32]
        uint64_t unix_ns
        uint64_t duration_ns

    struct wg_peer_status:
        uint8_t public_key[32]
        uint8_t preshared_key[32]
        endpoint endpoint
        uint64_t last_handshake_unix_ns
        uint64_t handshake_duration_ns
        uint64_t rx_bytes
        uint64_t tx_bytes
        uint32_t handshake_attempts
        uint16_t keepalive_s
        bint has_session

    struct wg_prefix:
        uint8_t family
        uint8_t cidr
        uint8_t address[16]


cdef extern from "wireguard/index_table.h" nogil:
    enum:
        INDEX_SLOT_HANDSHAKE

    struct index_entry:
        uint32_t index
        uint32_t slot
        wg_peer *peer

    struct index_table:
        index_entry *entries
        uint32_t mask
        uint32_t used


cdef extern from "wireguard/keypair.h" nogil:
    struct wg_keypair:
        uint8_t receive_key[32]
        uint64_t created_ns
        uint32_t local_index
        uint32_t remote_index
        bint initiator
        bint can_receive
        bint can_send
        uint8_t send_key[32]
        uint64_t send_counter
        replay_window window


cdef extern from "wireguard/noise.h" nogil:
    struct noise_state:
        uint8_t chaining_key[32]
        uint8_t hash[32]

    enum:
        NOISE_EPHEMERALS

    struct noise_identity:
        bint known
        uint8_t private_key[32]
        uint8_t public_key[32]

    struct noise_remote:
        uint8_t public_key[32]
        uint8_t preshared_key[32]
        uint8_t static_static[32]

    struct noise_ephemeral:
        uint8_t private_key[32]
        uint8_t public_key[32]
        uint8_t shared[32]
        const noise_remote *remote

    struct noise_ephemerals:
        noise_ephemeral pairs[4]
        uint32_t count

    struct wg_handshake:
        noise_state state
        uint8_t ephemeral[32]
        uint64_t sent_ns
        uint32_t local_index

    struct noise_opened:
        noise_state state
        uint8_t ephemeral[32]
        uint8_t public_key[32]
        uint8_t timestamp[12]
        uint32_t sender

    struct noise_keys:
        uint8_t send[32]
        uint8_t receive[32]


cdef extern from "wireguard/cookie.h" nogil:
    struct cookie_checker:
        uint8_t mac1_key[32]
        uint8_t cookie_key[32]
        uint8_t secret[32]
        uint64_t secret_born_ns

    struct cookie_maker:
        uint8_t mac1_key[32]
        uint8_t cookie_key[32]
        uint8_t cookie[16]
        uint8_t last_mac1[16]
        uint64_t born_ns
        bint awaits_reply


cdef extern from "wireguard/ratelimiter.h" nogil:
    enum:
        RATELIMITER_WAYS

    struct ratelimiter_entry:
        uint64_t source
        uint64_t full_at_ns
        uint32_t family

    struct ratelimiter:
        ratelimiter_entry *entries
        uint32_t set_mask
        uint8_t hash_key[16]


cdef extern from "wireguard/allowed_ips.h" nogil:
    enum:
        ALLOWED_IPS_NONE

    struct allowed_node:
        uint64_t high
        uint64_t low
        void *owner
        uint32_t child[2]
        uint32_t parent
        uint8_t cidr
        uint8_t family
        uint32_t owned_next
        uint32_t owned_previous

    struct allowed_ips:
        allowed_node *nodes
        uint32_t capacity
        uint32_t fresh
        uint32_t free
        uint32_t root[2]
        uint32_t prefixes
        uint32_t limit


cdef extern from "wireguard/state.h" nogil:
    enum:
        TIMER_RETRANSMIT_HANDSHAKE
        TIMER_SEND_KEEPALIVE
        TIMER_NEW_HANDSHAKE
        TIMER_ZERO_KEYS
        TIMER_PERSISTENT_KEEPALIVE
        WG_TIMER_COUNT

        LIST_ALL
        LIST_TRANSMIT
        LIST_READY
        WG_LIST_COUNT

        WANT_INITIATION
        WANT_KEEPALIVE

    uint32_t HEAP_NONE
    uint32_t STAGED_NONE

    struct wg_list:
        wg_peer *first
        wg_peer *last

    struct wg_link:
        wg_peer *next
        wg_peer *previous
        bint linked

    struct wg_peer:
        wg_keypair *current
        wg_keypair *previous
        wg_keypair *next
        uint64_t rx_bytes
        uint64_t tx_bytes
        uint64_t deadline_ns[5]
        uint64_t wake_ns
        uint32_t heap_at
        uint16_t keepalive_s
        bint last_minute_sent
        bint proved
        uint32_t wants
        endpoint endpoint
        uint32_t retries
        uint32_t initiations_sent
        uint32_t staged_first
        uint32_t staged_last
        uint32_t staged_count
        uint32_t allowed_first
        uint32_t number
        wg_link links[3]
        uint64_t last_handshake_sent_ns
        uint64_t last_initiation_ns
        uint64_t timestamp_sent
        uint64_t completed_ns
        uint64_t handshake_duration_ns
        uint8_t timestamp_seen[12]
        noise_remote remote
        wg_handshake handshake
        cookie_maker cookie
        wg_keypair keypairs[3]

    struct wg_queued:
        endpoint source "from"
        uint32_t length "len"
        uint8_t message[148]

    struct wg_staged:
        uint32_t next
        uint32_t length "len"

    struct wg_ring:
        uint32_t head
        uint32_t count
        uint32_t capacity

    struct wg_device:
        bint up
        noise_identity identity
        noise_ephemerals ahead
        index_table indices
        allowed_ips allowed_ips
        wg_list lists[3]
        uint32_t peer_count
        uint32_t last_peer_number
        wg_peer **heap
        uint32_t heap_len
        uint32_t heap_capacity
        uint64_t jitter
        drop_counters drops
        cookie_checker checker
        noise_state initial
        wg_random_fn random
        void *random_ctx
        uint64_t unix_ns
        uint64_t unix_at_ns
        uint64_t floor_ns
        uint64_t timestamp_highest
        uint64_t floor_saved_ns
        bint floor_wanted
        uint64_t loaded_until_ns
        uint64_t load_ns
        uint64_t load_cost_ns
        uint32_t load_queue
        ratelimiter ratelimiter
        wg_queued *queue
        wg_ring queue_ring
        wg_transmit *outbox
        wg_ring outbox_ring
        wg_event *events
        wg_ring event_ring
        uint8_t *staged_pool
        size_t staged_slot_bytes
        uint32_t staged_free
        wg_peer **peer_slots
        uint32_t peer_mask
        uint64_t peer_hash_key
        wg_peer *dead
        wg_limits limits
        size_t bytes

    wg_staged *staged_at(const wg_device *dev, uint32_t slot)
    uint32_t ring_at(const wg_ring *ring, uint32_t i)
    void ring_pop(wg_ring *ring)
