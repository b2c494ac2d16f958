# SPDX-License-Identifier: Apache-2.0
# The native thread's possessions; the theory is in core.h.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.arena cimport arena
from cext.crypto.crypto cimport aead_job
from cext.engine.gro cimport gro_batch
from cext.host.thread cimport gate, thread, workers
from cext.host.tun cimport iovec, tun
from cext.host.udp cimport udp_buffer, udp_port, udp_run
from cext.wireguard.device cimport wg_device, wg_inbound, wg_limits, wg_peer


cdef extern from "base/drops.h" nogil:
    enum:
        DROP_HOST_SEND_FAILED
        DROP_HOST_SEND_BUFFER_FULL
        DROP_HOST_TUN_WRITE_FAILED
        DROP_HOST_TRUNCATED
        DROP_ENGINE_NO_BUFFER
        DROP_ENGINE_NO_INNER_PORT
        DROP_ENGINE_TOO_BIG


cdef extern from "engine/core.h" nogil:
    enum:
        OUT_TURN_FLUSHES
        OUT_TURN_READS
        IN_TURN_ROUNDS
        HANDSHAKES_PER_TURN
        EVENTS_DELAY_NS
        QUIET_NS
        ENGINE_EVENTS
        MEMORY_LIMIT_MIN
        MEMORY_LIMIT_FULL
        MEMORY_LIMIT_DEFAULT
        ENGINE_MTU_MIN
        ENGINE_MTU_MAX
        EVENT_HANDSHAKE
        EVENT_HANDSHAKE_GIVEN_UP
        EVENT_ENDPOINT
        EVENT_SOURCE_LOST
        EVENT_TIMESTAMP_FLOOR
        EVENT_INNER_CLOSED
        EVENT_SOCKET_ERROR
        EVENT_DIALLED

    struct engine_event:
        uint32_t kind
        uint8_t public_key[32]
        uint64_t value

    struct event_ring:
        uint64_t lost
        bint unsaid
        int wake

    struct outbound:
        uint8_t *packet
        uint32_t packet_capacity
        uint8_t *area
        uint32_t area_size
        uint32_t used
        udp_run runs[32]
        wg_peer *peers[32]
        uint32_t counts[32]
        bint open
        unsigned int run_count
        aead_job jobs[128]
        unsigned int job_count
        unsigned int flushes

    struct inbound:
        udp_buffer buffers[64]
        unsigned int buffer_count
        wg_inbound packets[128]
        uint8_t tos[128]
        aead_job jobs[128]
        unsigned int count
        gro_batch delivered
        iovec vectors[257]

    struct inner_port:
        void *context
        void (*deliver)(void *context, uint64_t now_ns, gro_batch *packets) noexcept nogil
        bint (*pull)(void *context, uint64_t now_ns) noexcept nogil
        uint64_t (*poll_at)(void *context) noexcept nogil

    struct engine_statistics:
        uint64_t turns
        uint64_t tx_packets
        uint64_t tx_bytes
        uint64_t rx_packets
        uint64_t rx_bytes
        uint64_t seal_batches
        uint64_t open_batches
        uint64_t icmp_errors
        uint64_t commands

    struct engine_core:
        arena arena
        uint32_t features
        wg_limits limits
        wg_device *device
        udp_port udp
        tun tun
        inner_port *port
        inner_port host_port
        inner_port *stack
        inner_port stack_port
        void *relay  # struct relay of relay.pxd
        size_t memory_limit
        outbound out
        inbound inbound "in"
        gate gate
        workers workers
        thread thread
        event_ring events
        engine_statistics statistics
        int loop
        uint16_t listen_port
        bint is_up
        bint stopping
        bint stack_ready
        uint64_t unix_time_at_ns
        uint64_t tell_at_ns
        uint8_t icmp[1280]

    engine_core *core_create(size_t limit, uint32_t features, uint32_t mtu)
    void core_destroy(engine_core *core)
    void core_size_buffers(engine_core *core, uint32_t mtu)
    size_t core_memory_bytes(const engine_core *core)
    bint core_may_send_icmp(engine_core *core, uint64_t now_ns)
    uint8_t core_outer_tos(const uint8_t *packet)
    void core_take_congestion(uint8_t *packet)
    bint event_put(event_ring *r, uint32_t kind, const uint8_t *public_key, uint64_t value)
    void event_tell(event_ring *r)
    bint event_take(event_ring *r, engine_event *event)
