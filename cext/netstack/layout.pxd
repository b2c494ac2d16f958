# SPDX-License-Identifier: Apache-2.0
# The structs of the room as Cython sees them; what they mean stands in the headers.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.drops cimport drop_counters
from cext.wire.tcp cimport sequence_range


cdef extern from "netstack/slab.h" nogil:
    const uint32_t NS_NIL

    enum:
        SLAB_CONTROL
        SLAB_SEND
        SLAB_RECEIVE
        SLAB_USES
        BLOCK_FIN
        BLOCK_SENT
        BLOCK_SACKED
        BLOCK_LOST
        BLOCK_RETRANSMITTED
        BLOCK_EVER_RETRANSMITTED
        BLOCK_APP_LIMITED
        BLOCK_ON_TIME_LIST

    struct block:
        uint32_t next
        uint32_t prev
        uint32_t time_next
        uint32_t time_prev
        uint32_t seq
        uint32_t run
        uint32_t xmit_us
        uint32_t first_sent_us
        uint32_t delivered
        uint32_t delivered_us
        uint32_t owner
        uint32_t peer
        uint16_t offset
        uint16_t len
        uint8_t flags
        uint8_t transmissions

    struct slab:
        uint8_t *memory
        uint32_t block_bytes
        uint32_t blocks
        uint32_t used
        uint32_t peak
        uint32_t free_head
        uint32_t fresh
        uint32_t limit[SLAB_USES]
        uint32_t failures[SLAB_USES]

    block *slab_block(const slab *s, uint32_t index)
    uint8_t *block_data(block *b)


cdef extern from "netstack/wheel.h" nogil:
    const uint32_t WHEEL_FARTHEST_MS
    const uint64_t WHEEL_NEVER

    enum:
        WHEEL_LEVELS
        WHEEL_BITS
        WHEEL_SLOTS

    struct wheel_timer:
        uint32_t next
        uint32_t prev
        uint32_t slot
        uint32_t due_ms

    struct wheel:
        uint64_t now_ms
        uint32_t timers
        uint32_t armed
        uint64_t occupied[WHEEL_LEVELS]
        wheel_timer *timer


cdef extern from "netstack/flow.h" nogil:
    const uint32_t FLOW_INDEX_MASK
    const uint32_t FLOW_INDEX_MAX
    const uint32_t FLOW_GENERATION_MASK

    enum:
        FLOW_INDEX_BITS
        FLOW_TCP
        FLOW_SYN_REQUEST
        FLOW_TIME_WAIT
        FLOW_UDP

    struct flow_tuple:
        uint8_t local[16]
        uint8_t remote[16]
        uint16_t local_port
        uint16_t remote_port

    struct flow_slot:
        uint32_t hash
        uint32_t ref

    struct flow_table:
        flow_slot *slot
        uint32_t mask
        uint32_t used
        uint64_t key[2]

    uint32_t flow_ref(uint32_t kind, uint32_t index)
    uint32_t ref_kind(uint32_t ref)
    uint32_t ref_index(uint32_t ref)
    uint32_t flow_handle(uint32_t kind, uint32_t index, uint32_t generation)
    uint32_t handle_generation(uint32_t handle)
    bint address_is_v4(const uint8_t *address)
    void address_from_v4(uint8_t *address, const uint8_t *v4)
    uint64_t siphash(const uint64_t *key, const void *p, size_t length, int c, int d)


cdef extern from "netstack/tcb.h" nogil:
    enum:
        TCP_CLOSED
        TCP_SYN_SENT
        TCP_SYN_RECEIVED
        TCP_ESTABLISHED
        TCP_FIN_WAIT_1
        TCP_FIN_WAIT_2
        TCP_CLOSE_WAIT
        TCP_CLOSING
        TCP_LAST_ACK
        TCP_FREE
        TCP_STATES
        RECOVERY_OPEN
        RECOVERY_DISORDER
        RECOVERY_FAST
        RECOVERY_LOSS
        TIMER_OFF
        TIMER_RTO
        TIMER_TLP
        TIMER_REORDER
        TIMER_PERSIST
        TIMER_HANDSHAKE
        TF_TIMESTAMPS
        TF_SACK
        TF_WINDOW_SCALE
        TF_ACK_NOW
        TF_ACK_DELAYED
        TF_FIN_QUEUED
        TF_FIN_PENDING
        TF_FIN_RECEIVED
        TF_ORPHAN
        TF_CWND_LIMITED
        TF_REORDERING_SEEN
        TF_NAGLE
        TF_TLP_RETRANSMITTED
        TF_WANT_WRITABLE
        TF_PASSIVE
        TF_DSACK
        TF_ROUND_DSACK
        TF_HYSTART
        TF_HYSTART_CSS
        TF_BLOCKED
        TF_GIVING
        TF_KEEPALIVE
        TF_FORCE_RETRANSMIT
        TF_PATH_MTU
        TF_IN_TABLE
        TF_EXPECT_WINDOW
        TF_PROBE
        TF_TLP_OUT
        TF_UNSEEN
        QUEUED_READY
        QUEUED_EVENT
        SYN_FREE
        SYN_DIALLING
        SYN_ANSWERED
        SYN_CANCELLED
        TIME_WAIT_TAKEN
        TIME_WAIT_TIMESTAMPS

    struct cubic:
        uint32_t w_max
        uint32_t epoch_ms
        uint32_t k_ms
        uint32_t origin
        uint32_t w_est
        uint32_t w_est_rest

    struct hystart:
        uint32_t round_end
        uint32_t last_min_us
        uint32_t min_us
        uint32_t baseline_us
        uint16_t samples
        uint16_t css_rounds
        uint32_t flight_max

    struct tcp_flow:
        flow_tuple tuple
        uint32_t peer
        uint64_t user
        uint32_t flags
        uint16_t generation
        uint8_t state
        uint8_t recovery
        uint32_t older
        uint32_t newer
        uint32_t snd_una
        uint32_t snd_nxt
        uint32_t write_seq
        uint32_t snd_wnd
        uint32_t snd_wl1
        uint32_t snd_wnd_max
        uint32_t tx_head
        uint32_t tx_tail
        uint32_t tx_next
        uint32_t time_head
        uint32_t time_tail
        uint32_t lost_head
        uint32_t lost_tail
        uint32_t sack_hint
        uint16_t mss
        uint16_t tx_blocks
        uint16_t rx_blocks
        uint8_t snd_scale
        uint8_t rcv_scale
        uint32_t sacked
        uint32_t lost
        uint32_t retransmitted
        uint32_t recovery_point
        uint32_t prr_delivered
        uint32_t prr_out
        uint32_t recovery_flight
        uint32_t train_start_us
        uint32_t train_last_us
        uint32_t undo_point
        uint16_t undo_by_time
        uint16_t undo_by_dsack
        uint32_t prior_cwnd
        uint32_t prior_ssthresh
        uint32_t highest_sacked
        uint32_t rack_xmit_us
        uint32_t rack_end
        uint32_t rack_rtt_us
        uint32_t rack_round
        uint32_t tlp_end
        uint8_t reorder_mult
        uint8_t reorder_persist
        uint8_t dupacks
        uint8_t backoff
        uint32_t srtt_us
        uint32_t rttvar_us
        uint32_t min_rtt_us
        uint32_t cwnd
        uint32_t ssthresh
        cubic cubic
        hystart hystart
        uint32_t delivered
        uint32_t delivered_us
        uint32_t first_sent_us
        uint32_t app_limited
        uint32_t rate_kbyte_s
        uint32_t rcv_nxt
        uint32_t rcv_edge
        uint32_t last_ack_sent
        uint32_t rcv_space
        uint32_t rcv_limit
        uint32_t ooo_head
        uint32_t ooo_tail
        uint32_t parked_head
        uint32_t parked_tail
        uint32_t parked
        sequence_range sack[4]
        uint32_t ts_recent
        uint32_t ts_recent_ms
        uint32_t ts_offset
        uint32_t send_due_ms
        uint32_t ack_due_ms
        uint32_t idle_due_ms
        uint32_t last_rx_ms
        uint32_t stalled_ms
        uint16_t user_timeout_s
        uint16_t keepalive_s
        uint16_t min_rtt_at
        uint16_t challenge_at
        uint8_t timer
        uint8_t probes
        uint8_t quick_acks
        uint8_t challenges
        uint8_t events
        uint8_t queued
        uint8_t error
        uint8_t acks_owed

    struct syn_request:
        flow_tuple tuple
        uint32_t peer
        uint32_t irs
        uint32_t iss
        uint32_t ts_value
        uint32_t ts_offset
        uint32_t born_ms
        uint32_t older
        uint32_t newer
        uint16_t mss
        uint16_t generation
        uint8_t listener
        uint8_t options
        uint8_t window_scale
        uint8_t state
        uint8_t retransmits
        uint8_t events
        uint8_t queued
        uint8_t ttl

    struct time_wait:
        flow_tuple tuple
        uint32_t snd_nxt
        uint32_t rcv_nxt
        uint32_t ts_recent
        uint32_t ts_offset
        uint32_t older
        uint32_t newer
        uint16_t due_quarter
        uint8_t flags
        uint8_t window_scale


cdef extern from "netstack/stack.h" nogil:
    enum:
        NS_BATCH_MAX
        NS_SCRATCH_BYTES
        NS_MAX_HEADERS
        NS_ADDRESSES_MAX
        NS_LISTENERS_MAX
        NS_REASSEMBLED_MAX
        NS_PARTS_MAX
        NS_UDP_BUCKETS
        NS_OK
        NS_BAD_HANDLE
        NS_FULL
        NS_BAD_STATE
        NS_IN_USE
        NS_INVALID
        NS_EVENT_SYN
        NS_EVENT_CONNECTED
        NS_EVENT_READABLE
        NS_EVENT_WRITABLE
        NS_EVENT_PEER_CLOSED
        NS_EVENT_CLOSED
        NS_EVENT_CANCELLED
        NS_EVENT_OPENED
        NS_REASON_NONE
        NS_REASON_FINISHED
        NS_REASON_RESET
        NS_REASON_REFUSED
        NS_REASON_TIMEOUT
        NS_REASON_UNREACHABLE
        NS_REASON_EVICTED
        NS_REASON_IDLE
        NS_REFUSE_RESET
        NS_REFUSE_NETWORK
        NS_REFUSE_HOST
        NS_REFUSE_PORT
        NS_REFUSE_PROHIBITED
        NS_REFUSE_SILENT
        NS_DENY
        NS_REJECT
        NS_DIAL

    struct ns_limits:
        uint32_t slab_bytes
        uint32_t tcp_flows
        uint32_t udp_flows
        uint32_t time_waits
        uint32_t syn_requests
        uint32_t reassemblies
        uint32_t reassembly_blocks
        uint32_t answers
        uint32_t flow_rx_bytes
        uint32_t flow_tx_bytes
        uint32_t mtu_bytes
        uint32_t headroom_bytes
        uint32_t time_wait_ms
        uint32_t dial_ms
        uint32_t user_timeout_s
        uint32_t keepalive_s
        uint32_t udp_idle_s
        uint32_t dns_idle_s
        uint32_t min_rto_ms
        uint32_t delayed_ack_ms
        uint32_t icmp_errors_s

    struct ns_part:
        const uint8_t *data
        uint32_t len

    struct ns_datagram:
        const uint8_t *data
        uint32_t len
        uint16_t sequence
        uint8_t ttl

    struct ns_host:
        void *context
        void (*random)(void *context, void *out, uint32_t length) noexcept nogil
        int (*admit)(void *context, const flow_tuple *tuple, uint32_t protocol,
                     uint32_t peer) noexcept nogil
        uint32_t (*tcp_data)(void *context, uint32_t handle, uint64_t user, const uint8_t *data,
                             uint32_t length) noexcept nogil
        uint32_t (*tcp_parts)(void *context, uint32_t handle, uint64_t user,
                              const ns_part *parts, uint32_t n) noexcept nogil
        void (*datagram)(void *context, uint32_t handle, uint64_t user,
                         const ns_datagram *datagram) noexcept nogil
        void (*datagram_error)(void *context, uint32_t handle, uint64_t user,
                               uint32_t refusal) noexcept nogil

    struct ns_packet:
        uint8_t *data
        uint32_t len
        uint32_t handle
        uint32_t peer
        uint32_t run

    struct ns_event:
        uint64_t user
        uint32_t handle
        uint16_t events
        uint16_t reason

    struct ns_space:
        uint8_t *data
        uint32_t len

    struct ns_statistics:
        uint64_t packets_in
        uint64_t packets_out
        uint64_t bytes_in
        uint64_t bytes_out
        uint64_t segments_in
        uint64_t segments_out
        uint64_t retransmits
        uint64_t fast_recoveries
        uint64_t timeouts
        uint64_t tail_probes
        uint64_t spurious
        uint64_t undone
        uint64_t resets_in
        uint64_t resets_out
        uint64_t challenge_acks
        uint64_t cookies_sent
        uint64_t cookies_accepted
        uint64_t out_of_order
        uint64_t duplicates
        uint64_t window_probes
        uint64_t keepalives
        uint64_t evicted
        uint64_t opened
        uint64_t closed
        uint64_t fragments_in
        uint64_t reassembled
        uint64_t icmp_in
        uint64_t icmp_out
        uint64_t bad_transitions

    struct udp_flow:
        flow_tuple tuple
        uint32_t peer
        uint64_t user
        uint32_t older
        uint32_t newer
        uint32_t last_ms
        uint16_t generation
        uint16_t idle_s
        uint8_t protocol
        uint8_t taken
        uint8_t events
        uint8_t queued
        uint8_t ttl

    struct ns_listener:
        uint8_t local[16]
        uint64_t user
        uint32_t receive_space
        uint16_t backlog
        uint16_t waiting
        uint16_t port
        uint8_t protocol

    struct reassembly:
        uint8_t source[16]
        uint8_t destination[16]
        uint32_t id
        uint32_t head
        uint32_t born_ms
        uint32_t peer
        uint32_t got
        uint32_t total
        uint16_t blocks
        uint8_t version
        uint8_t protocol
        uint8_t ttl
        uint8_t tos
        uint8_t taken

    struct icmp_error:
        flow_tuple tuple
        uint32_t seq
        uint32_t mtu
        uint8_t refusal
        uint8_t protocol

    struct pool:
        uint32_t free_head
        uint32_t fresh
        uint32_t count
        uint32_t used

    struct age_list:
        uint32_t oldest
        uint32_t newest

    struct udp_peer:
        uint32_t peer
        uint32_t next
        uint32_t count
        age_list age

    struct ref_ring:
        uint32_t *ref
        uint32_t mask
        uint32_t head
        uint32_t tail

    struct netstack:
        ns_limits limits
        ns_host host
        uint64_t now_ns
        uint64_t now_ms64
        uint32_t now_us
        uint32_t now_ms
        slab slab
        wheel wheel
        flow_table table
        pool tcp_pool
        pool syn_pool
        pool time_wait_pool
        pool udp_pool
        tcp_flow *tcp
        syn_request *syn
        time_wait *time_wait
        udp_flow *udp
        age_list tcp_age
        age_list syn_age
        age_list time_wait_age
        udp_peer *udp_peer
        uint32_t udp_peer_free
        uint32_t udp_peer_fresh
        uint32_t udp_bucket[NS_UDP_BUCKETS]
        uint32_t udp_live
        ref_ring ready
        ref_ring events
        uint32_t answer_head
        uint32_t answer_tail
        uint32_t answers
        uint32_t spent_head
        uint32_t scratch_used
        uint32_t reserved_head
        uint32_t reserved_handle
        uint32_t reserved_room
        uint32_t starved
        uint8_t *scratch
        ns_part part[NS_PARTS_MAX]
        uint32_t parts
        uint32_t parts_flow
        reassembly *reassembly
        uint32_t reassembly_blocks
        uint32_t reassemblies
        uint8_t *reassembled
        uint8_t address[NS_ADDRESSES_MAX][16]
        uint32_t addresses
        ns_listener listener[NS_LISTENERS_MAX]
        uint32_t listeners
        uint64_t isn_key[2]
        uint64_t cookie_key[2]
        uint32_t next_id
        uint16_t next_port
        uint8_t rx_scale
        uint8_t overloaded
        uint32_t cookie_ms
        uint32_t error_second
        uint32_t errors_sent
        drop_counters drops
        ns_statistics statistics
