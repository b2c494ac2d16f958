# SPDX-License-Identifier: Apache-2.0
"""A device in virtual time for tests, and its parts one by one; not in the firmware."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from cext.base.drops cimport DROP_REASON_COUNT, drop_reason_name
from cext.base.endian cimport store_le64
from cext.crypto.crypto cimport aead_job, aead_open_batch, aead_seal_batch
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6, endpoint
from cext.wireguard cimport constants
from cext.wireguard.allowed_ips cimport (
    allowed_ips_init,
    allowed_ips_insert,
    allowed_ips_lookup_v4,
    allowed_ips_lookup_v6,
    allowed_ips_prefix,
    allowed_ips_release,
    allowed_ips_remove,
    allowed_ips_remove_owner,
)
from cext.wireguard.device cimport *
from cext.wireguard.index_table cimport (
    index_table_insert,
    index_table_lookup,
    index_table_release,
    index_table_remove,
    index_table_reserve,
)
from cext.wireguard.ratelimiter cimport (
    ratelimiter_allow,
    ratelimiter_init,
    ratelimiter_release,
)
from cext.wireguard.receive cimport (
    wg_process_handshakes,
    wg_receive_finish,
    wg_receive_prepare,
)
from cext.wireguard.replay cimport REPLAY_WINDOW, replay_accept, replay_window
from cext.wireguard.send cimport (
    wg_next_staged,
    wg_next_transmit,
    wg_route,
    wg_send_done,
    wg_send_prepare,
    wg_stage,
)
from cext.wireguard.state cimport (
    ALLOWED_IPS_NONE,
    allowed_ips,
    index_entry,
    ratelimiter,
    wg_keypair,
)
from cext.wireguard.tai64n cimport tai64n_encode, tai64n_whiten
from cext.wireguard.timers cimport wg_advance, wg_poll_at


def protocol_constants():
    """The protocol's numbers, times in nanoseconds."""
    return {
        "REKEY_AFTER_MESSAGES": constants.REKEY_AFTER_MESSAGES,
        "REJECT_AFTER_MESSAGES": constants.REJECT_AFTER_MESSAGES,
        "REKEY_AFTER_TIME_NS": constants.REKEY_AFTER_TIME_NS,
        "REJECT_AFTER_TIME_NS": constants.REJECT_AFTER_TIME_NS,
        "REKEY_ATTEMPT_TIME_NS": constants.REKEY_ATTEMPT_TIME_NS,
        "REKEY_TIMEOUT_NS": constants.REKEY_TIMEOUT_NS,
        "REKEY_TIMEOUT_JITTER_MAX_MS": constants.REKEY_TIMEOUT_JITTER_MAX_MS,
        "MAX_TIMER_HANDSHAKES": constants.MAX_TIMER_HANDSHAKES,
        "KEEPALIVE_TIMEOUT_NS": constants.KEEPALIVE_TIMEOUT_NS,
        "COOKIE_SECRET_MAX_AGE_NS": constants.COOKIE_SECRET_MAX_AGE_NS,
        "COOKIE_SECRET_LATENCY_NS": constants.COOKIE_SECRET_LATENCY_NS,
        "INITIATIONS_PER_SECOND": constants.INITIATIONS_PER_SECOND,
        "COUNTER_WINDOW_SIZE": REPLAY_WINDOW,
        "PACKETS_PER_SECOND": constants.PACKETS_PER_SECOND,
        "PACKETS_BURSTABLE": constants.PACKETS_BURSTABLE,
        "MAX_STAGED_PACKETS": WG_MAX_STAGED_PER_PEER,
        "PADDING_MULTIPLE": constants.PADDING_MULTIPLE,
        "ZERO_KEYS_NS": constants.ZERO_KEYS_NS,
    }


# -- conversions --

cdef uint8_t *at(bytes value) noexcept:
    return <uint8_t *>PyBytes_AS_STRING(value)


cdef bytes copied(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>length)


cdef int to_endpoint(object value, endpoint *out) except -1:
    cdef bytes address = value[0]
    cdef bytes source

    memset(out, 0, sizeof(out[0]))
    out.family = WT_AF_INET if len(address) == 4 else WT_AF_INET6
    memcpy(out.address, at(address), len(address))
    out.port = value[1]
    if len(value) > 2:
        source = value[2]
        out.source_known = 1
        memcpy(out.source, at(source), len(source))
    return 0


cdef object from_endpoint(const endpoint *value):
    cdef size_t length = 4 if value.family == WT_AF_INET else 16

    if value.family == 0:
        return None
    if value.source_known:
        return (copied(value.address, length), value.port, copied(value.source, length))
    return (copied(value.address, length), value.port)


cdef int to_prefix(object value, wg_prefix *out) except -1:
    cdef bytes address = value[0]

    memset(out, 0, sizeof(out[0]))
    out.family = WT_AF_INET if len(address) == 4 else WT_AF_INET6
    out.cidr = value[1]
    memcpy(out.address, at(address), len(address))
    return 0


cdef object from_prefix(const wg_prefix *value):
    return (copied(value.address, 4 if value.family == WT_AF_INET else 16), value.cidr)


# -- randomness that a test can repeat --

cdef void seeded(void *ctx, uint8_t *out, size_t length) noexcept nogil:
    """splitmix64; `ctx` is its 64-bit state."""
    cdef uint64_t *state = <uint64_t *>ctx
    cdef uint64_t z
    cdef uint8_t word[8]
    cdef size_t n

    while length:
        state[0] += <uint64_t>0x9e3779b97f4a7c15
        z = state[0]
        z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
        z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
        store_le64(word, z ^ (z >> 31))
        n = length if length < 8 else 8
        memcpy(out, word, n)
        out += n
        length -= n


# -- parts --

def whiten(uint64_t unix_ns):
    return tai64n_whiten(unix_ns)


def tai64n(uint64_t unix_ns):
    cdef uint8_t out[12]

    tai64n_encode(out, unix_ns)
    return copied(out, 12)


cdef class ReplayWindow:
    cdef replay_window window

    def accept(self, uint64_t counter):
        return replay_accept(&self.window, counter)

    def accept_range(self, uint64_t start, uint64_t stop):
        cdef uint64_t counter, taken = 0

        with nogil:
            for counter in range(start, stop):
                taken += replay_accept(&self.window, counter)
        return taken


cdef class RateLimiter:
    cdef ratelimiter limiter

    def __cinit__(self, uint32_t entries=4096, uint64_t seed=1):
        if ratelimiter_init(&self.limiter, entries):
            raise MemoryError
        seeded(&seed, self.limiter.hash_key, sizeof(self.limiter.hash_key))

    def __dealloc__(self):
        ratelimiter_release(&self.limiter)

    def allow(self, uint64_t now_ns, bytes address):
        cdef endpoint source

        to_endpoint((address, 1), &source)
        return ratelimiter_allow(&self.limiter, now_ns, &source)


cdef uint32_t *first_of(void *owner) noexcept nogil:
    return <uint32_t *>owner


cdef class AllowedIps:
    """Owners are small numbers; each has its list head in `heads`."""

    cdef allowed_ips table
    cdef uint32_t heads[256]

    def __cinit__(self, uint32_t limit=1 << 20):
        memset(self.heads, 0, sizeof(self.heads))
        allowed_ips_init(&self.table, limit)

    def __dealloc__(self):
        allowed_ips_release(&self.table)

    def insert(self, uint8_t owner, bytes address, uint8_t cidr):
        cdef wg_prefix prefix

        to_prefix((address, cidr), &prefix)
        return allowed_ips_insert(&self.table, &prefix, &self.heads[owner], first_of)

    def remove(self, uint8_t owner, bytes address, uint8_t cidr):
        cdef wg_prefix prefix

        to_prefix((address, cidr), &prefix)
        return allowed_ips_remove(&self.table, &prefix, &self.heads[owner], first_of)

    def remove_owner(self, uint8_t owner):
        allowed_ips_remove_owner(&self.table, &self.heads[owner])

    def lookup(self, bytes address):
        cdef void *owner

        if len(address) == 4:
            owner = allowed_ips_lookup_v4(&self.table, at(address))
        else:
            owner = allowed_ips_lookup_v6(&self.table, at(address))
        return None if owner == NULL else <uint32_t *>owner - self.heads

    def owned(self, uint8_t owner):
        cdef uint32_t node = self.heads[owner]
        cdef wg_prefix prefix
        cdef set found = set()

        while node != ALLOWED_IPS_NONE:
            allowed_ips_prefix(&self.table.nodes[node], &prefix)
            found.add(from_prefix(&prefix))
            node = self.table.nodes[node].owned_next
        return found

    def nodes(self):
        """Nodes in use: prefixes and forks."""
        cdef uint32_t node = self.table.free
        cdef uint32_t unused = 0

        while node != ALLOWED_IPS_NONE:
            unused += 1
            node = self.table.nodes[node].child[0]
        return self.table.fresh - 1 - unused


cdef class Indices:
    """The index table of a device without peers."""

    cdef Device device

    def __cinit__(self, uint64_t seed=1):
        self.device = Device(seed)
        index_table_release(&self.device.dev.indices)
        self.device.dev.indices.used = 0
        index_table_reserve(&self.device.dev.indices, 1)

    def insert(self, uint32_t slot):
        if index_table_reserve(&self.device.dev.indices, self.device.dev.indices.used + 1):
            raise MemoryError
        return index_table_insert(self.device.dev, NULL, slot)

    def lookup(self, uint32_t index):
        cdef index_entry *entry = index_table_lookup(&self.device.dev.indices, index)

        return None if entry == NULL else entry.slot

    def remove(self, uint32_t index):
        index_table_remove(&self.device.dev.indices, index)

    def __len__(self):
        return self.device.dev.indices.used


# -- the device --

cdef object session(const wg_keypair *keypair):
    return None if keypair == NULL else (keypair.local_index, keypair.remote_index)


cdef class Inbound:
    """A datagram between prepare and finish."""

    cdef:
        uint8_t *data
        endpoint source
        wg_inbound inbound
        aead_job job
        readonly int verdict
        readonly object payload
        readonly object public_key

    def __dealloc__(self):
        free(self.data)


cdef class Device:
    """What cext/wireguard/device.h describes, one call a function.

    Endpoints are (address, port) or (address, port, source address); prefixes are
    (address, cidr); addresses are 4 or 16 bytes. Peers are named by public key.
    """

    def __cinit__(self, uint64_t seed=0, **limits):
        cdef wg_limits wanted

        memset(&wanted, 0, sizeof(wanted))
        self.random_state = seed
        wanted.max_peers = limits.pop("max_peers", 0)
        wanted.max_allowed_ips = limits.pop("max_allowed_ips", 0)
        wanted.max_staged_packets = limits.pop("max_staged_packets", 0)
        wanted.staged_packet_bytes = limits.pop("staged_packet_bytes", 0)
        wanted.handshake_queue = limits.pop("handshake_queue", 0)
        wanted.handshake_rate = limits.pop("handshake_rate", 0)
        wanted.ratelimiter_entries = limits.pop("ratelimiter_entries", 0)
        wanted.outbox = limits.pop("outbox", 0)
        wanted.events = limits.pop("events", 0)
        wanted.build_unix_ns = limits.pop("build_unix_ns", 0)
        wanted.floor_step_ns = limits.pop("floor_step_ns", 0)
        if limits:
            raise TypeError(f"no such limits: {sorted(limits)}")
        self.dev = wg_device_create(&wanted, seeded, &self.random_state)
        if self.dev == NULL:
            raise MemoryError

    def __dealloc__(self):
        wg_device_destroy(self.dev)

    cdef wg_peer *peer(self, bytes public_key) except NULL:
        cdef wg_peer *found = wg_peer_find(self.dev, at(public_key))

        if found == NULL:
            raise KeyError(public_key)
        return found

    # -- life and time --

    def up(self, uint64_t now_ns):
        wg_device_up(self.dev, now_ns)

    def down(self):
        wg_device_down(self.dev)

    def wants_ahead(self):
        return wg_wants_ahead(self.dev)

    def make_ahead(self):
        wg_make_ahead(self.dev)

    def set_unix_time(self, uint64_t now_ns, uint64_t unix_ns):
        wg_device_set_unix_time(self.dev, now_ns, unix_ns)

    def set_timestamp_floor(self, uint64_t unix_ns):
        wg_device_set_timestamp_floor(self.dev, unix_ns)

    def poll_at(self):
        cdef uint64_t at_ns = wg_poll_at(self.dev)

        return None if at_ns == WG_NEVER else at_ns

    def advance(self, uint64_t now_ns):
        wg_advance(self.dev, now_ns)

    # -- configuration --

    def set_private_key(self, key):
        cdef bytes value

        if key is None:
            wg_device_set_private_key(self.dev, NULL)
        else:
            value = key
            wg_device_set_private_key(self.dev, at(value))

    def keys(self):
        cdef uint8_t private_key[32]
        cdef uint8_t public_key[32]

        if not wg_device_keys(self.dev, private_key, public_key):
            return None
        return copied(private_key, 32), copied(public_key, 32)

    def add_peer(self, bytes public_key):
        cdef int error = 0

        return 0 if wg_peer_add(self.dev, at(public_key), &error) != NULL else error

    def has_peer(self, bytes public_key):
        return wg_peer_find(self.dev, at(public_key)) != NULL

    def remove_peer(self, bytes public_key):
        wg_peer_remove(self.dev, self.peer(public_key))

    def remove_all_peers(self):
        wg_peer_remove_all(self.dev)

    def set_preshared_key(self, bytes public_key, bytes key):
        wg_peer_set_preshared_key(self.dev, self.peer(public_key), at(key))

    def set_endpoint(self, uint64_t now_ns, bytes public_key, to):
        cdef endpoint value

        to_endpoint(to, &value)
        wg_peer_set_endpoint(self.dev, now_ns, self.peer(public_key), &value)

    def set_keepalive(self, uint64_t now_ns, bytes public_key, uint16_t keepalive_s):
        wg_peer_set_keepalive(self.dev, now_ns, self.peer(public_key), keepalive_s)

    def add_allowed_ip(self, bytes public_key, prefix):
        cdef wg_prefix value

        to_prefix(prefix, &value)
        return wg_peer_add_allowed_ip(self.dev, self.peer(public_key), &value)

    def remove_allowed_ip(self, bytes public_key, prefix):
        cdef wg_prefix value

        to_prefix(prefix, &value)
        return wg_peer_remove_allowed_ip(self.dev, self.peer(public_key), &value)

    def remove_allowed_ips(self, bytes public_key):
        wg_peer_remove_allowed_ips(self.dev, self.peer(public_key))

    def initiate(self, uint64_t now_ns, bytes public_key):
        wg_peer_initiate(self.dev, now_ns, self.peer(public_key))

    def expire_session(self, bytes public_key):
        wg_peer_expire_session(self.dev, self.peer(public_key))

    def clear_sources(self):
        wg_device_clear_sources(self.dev)

    # -- datagrams in --

    def prepare(self, uint64_t now_ns, bytes datagram, source):
        cdef Inbound item = Inbound()

        # Exactly as long as the datagram, so that sanitizers see every byte too far.
        item.data = <uint8_t *>malloc(max(1, len(datagram)))
        if item.data == NULL:
            raise MemoryError
        memcpy(item.data, at(datagram), len(datagram))
        to_endpoint(source, &item.source)
        item.verdict = wg_receive_prepare(self.dev, now_ns, item.data, len(datagram),
                                          &item.source, &item.inbound, &item.job)
        return item

    def open(self, Inbound item):
        aead_open_batch(&item.job, 1)

    def finish(self, uint64_t now_ns, Inbound item):
        item.verdict = wg_receive_finish(self.dev, now_ns, &item.inbound)
        if item.verdict == WG_IN_DELIVER:
            item.payload = copied(item.inbound.payload, item.inbound.length)
            item.public_key = copied(wg_peer_public_key(item.inbound.peer), 32)
        return item.verdict

    def receive(self, uint64_t now_ns, bytes datagram, source):
        """One datagram through the whole device; an inner packet or None."""
        cdef Inbound item = self.prepare(now_ns, datagram, source)

        if item.verdict == WG_IN_OPEN:
            self.open(item)
            self.finish(now_ns, item)
        wg_process_handshakes(self.dev, now_ns, 1 << 30)
        return item.payload

    def process_handshakes(self, uint64_t now_ns, uint32_t budget=1 << 30):
        return wg_process_handshakes(self.dev, now_ns, budget)

    # -- datagrams out --

    cdef object seal(self, uint64_t now_ns, wg_peer *peer, const uint8_t *packet,
                     size_t length, size_t mtu_bytes):
        cdef uint8_t *buffer = <uint8_t *>malloc(WG_HEADER_LEN + length + WG_TRAILER_LEN)
        cdef wg_outbound out
        cdef aead_job job
        cdef int verdict

        try:
            memcpy(buffer + WG_HEADER_LEN, packet, length)
            verdict = wg_send_prepare(self.dev, now_ns, peer, buffer, length, mtu_bytes, &out,
                                      &job)
            if verdict == WG_OUT_STAGE:
                wg_stage(self.dev, now_ns, peer, packet, length)
                return None
            if verdict == WG_OUT_DROPPED:
                return None
            aead_seal_batch(&job, 1)
            wg_send_done(self.dev, now_ns, peer, 1, out.length, length > 0)
            return copied(buffer, out.length), from_endpoint(out.endpoint)
        finally:
            free(buffer)

    def route(self, bytes packet):
        cdef wg_peer *peer = wg_route(self.dev, at(packet), len(packet))

        return None if peer == NULL else copied(wg_peer_public_key(peer), 32)

    def send(self, uint64_t now_ns, bytes packet, size_t mtu_bytes=1420):
        """(datagram, endpoint), or None when it was staged or dropped."""
        cdef wg_peer *peer = wg_route(self.dev, at(packet), len(packet))

        if peer == NULL:
            return None
        return self.seal(now_ns, peer, at(packet), len(packet), mtu_bytes)

    def send_to(self, uint64_t now_ns, bytes public_key, bytes packet, size_t mtu_bytes=1420):
        """The same without routing."""
        return self.seal(now_ns, self.peer(public_key), at(packet), len(packet), mtu_bytes)

    def staged(self, uint64_t now_ns, size_t mtu_bytes=1420):
        cdef wg_peer *peer = NULL
        cdef const uint8_t *packet = NULL
        cdef uint32_t length = 0
        cdef list out = []

        while wg_next_staged(self.dev, now_ns, &peer, &packet, &length):
            out.append(self.seal(now_ns, peer, packet, length, mtu_bytes))
        return out

    def transmits(self, uint64_t now_ns, limit=None):
        cdef wg_transmit transmit
        cdef list out = []

        while (limit is None or len(out) < limit) and wg_next_transmit(self.dev, now_ns,
                                                                       &transmit):
            out.append((copied(transmit.data, transmit.length), from_endpoint(&transmit.to)))
        return out

    def outgoing(self, uint64_t now_ns):
        """Everything that waits: staged packets, then what the device itself sends."""
        return self.staged(now_ns) + self.transmits(now_ns)

    # -- observation --

    def peers(self):
        cdef wg_peer *peer = wg_peer_first(self.dev)
        cdef list out = []

        while peer != NULL:
            out.append(copied(wg_peer_public_key(peer), 32))
            peer = wg_peer_after(peer)
        return out

    def status(self, uint64_t now_ns, bytes public_key):
        cdef wg_peer *peer = self.peer(public_key)
        cdef wg_peer_status status
        cdef wg_prefix prefix
        cdef uint32_t cursor = 0
        cdef set allowed = set()

        wg_peer_get_status(self.dev, now_ns, peer, &status)
        while wg_peer_next_allowed_ip(self.dev, peer, &cursor, &prefix):
            allowed.add(from_prefix(&prefix))
        return {
            "preshared_key": copied(status.preshared_key, 32),
            "endpoint": from_endpoint(&status.endpoint),
            "last_handshake_unix_ns": status.last_handshake_unix_ns,
            "handshake_duration_ns": status.handshake_duration_ns,
            "rx_bytes": status.rx_bytes,
            "tx_bytes": status.tx_bytes,
            "handshake_attempts": status.handshake_attempts,
            "keepalive_s": status.keepalive_s,
            "has_session": status.has_session,
            "allowed_ips": allowed,
        }

    def events(self):
        cdef wg_event event
        cdef list out = []

        while wg_next_event(self.dev, &event):
            out.append((event.kind, copied(event.public_key, 32), event.unix_ns,
                        event.duration_ns))
        return out

    def drops(self):
        cdef dict out = {}
        cdef int reason

        for reason in range(DROP_REASON_COUNT):
            if wg_drops(self.dev).count[reason]:
                out[drop_reason_name(reason).decode()] = wg_drops(self.dev).count[reason]
        return out

    def memory_bytes(self):
        return wg_memory_bytes(self.dev)

    # -- what only a test may touch --

    def sessions(self, bytes public_key):
        """(current, previous, next): (local, remote) indices or None."""
        cdef wg_peer *peer = self.peer(public_key)

        return session(peer.current), session(peer.previous), session(peer.next)

    def indices_in_use(self):
        return self.dev.indices.used

    def handshake_index(self, bytes public_key):
        return self.peer(public_key).handshake.local_index

    def set_send_counter(self, bytes public_key, uint64_t counter):
        self.peer(public_key).current.send_counter = counter

    def ephemerals_ahead(self):
        """Every byte of the key pairs made ahead, and how many of them are ready."""
        return (copied(<const uint8_t *>self.dev.ahead.pairs, sizeof(self.dev.ahead.pairs)),
                self.dev.ahead.count)

    def secret_bytes(self, bytes public_key):
        """Every byte of the peer's sessions and handshake, to see whether they are gone."""
        cdef wg_peer *peer = self.peer(public_key)

        return (copied(<const uint8_t *>peer.keypairs, sizeof(peer.keypairs))
                + copied(<const uint8_t *>&peer.handshake, sizeof(peer.handshake)))
