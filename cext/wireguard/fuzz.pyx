# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets of the WireGuard room.

  message       one datagram against a device with a session and a pending handshake.
                The first byte says what is put right before: type, receiver index, MAC1,
                and whether the rest is sealed as the peer would, so that all parsers are
                reached in spite of the cryptography in front of them
  device        two devices and a wire between them; the bytes are steps: send, deliver,
                lose, repeat, change, wait, configure. After each step both are inspected
  allowed_ips   inserts, removals and lookups against a list of prefixes
  replay        counters against a list of counters

The devices' keys are computed once: a target that begins with Diffie-Hellman runs at a
tenth of the speed.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING

from cext.base.endian cimport load_le32, load_le64, store_be16, store_le32
from cext.crypto.crypto cimport (
    aead_job,
    aead_open_batch,
    aead_seal_batch,
    blake2s,
    crypto_init,
)
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6, endpoint
from cext.wireguard.allowed_ips cimport (
    allowed_ips_init,
    allowed_ips_insert,
    allowed_ips_lookup_v4,
    allowed_ips_lookup_v6,
    allowed_ips_release,
    allowed_ips_remove,
    allowed_ips_remove_owner,
)
from cext.wireguard.constants cimport NS_PER_MS, NS_PER_SECOND, REJECT_AFTER_MESSAGES
from cext.wireguard.cookie cimport cookie_keys
from cext.wireguard.device cimport *
from cext.wireguard.index_table cimport index_table_insert, index_table_lookup
from cext.wireguard.keypair cimport keypair_begin, keypair_set_keys
from cext.wireguard.noise cimport noise_set_identity, noise_set_remote
from cext.wireguard.receive cimport (
    wg_process_handshakes,
    wg_receive_finish,
    wg_receive_prepare,
)
from cext.wireguard.replay cimport REPLAY_WINDOW, replay_accept, replay_window
from cext.wireguard.send cimport (
    wg_next_staged,
    wg_next_transmit,
    wg_send_done,
    wg_send_prepare,
    wg_stage,
)
from cext.wireguard.state cimport (
    INDEX_SLOT_HANDSHAKE,
    LIST_ALL,
    LIST_TRANSMIT,
    STAGED_NONE,
    WG_TIMER_COUNT,
    allowed_ips,
    index_entry,
    noise_identity,
    noise_keys,
    noise_remote,
    staged_at,
    wg_keypair,
)
from cext.wireguard.timers cimport wg_advance, wg_poll_at

if crypto_init() != 0:
    raise RuntimeError("a known answer of the cryptography failed")


cdef void must(bint condition) noexcept nogil:
    if not condition:
        abort()


cdef void seeded(void *ctx, uint8_t *out, size_t length) noexcept nogil:
    cdef uint64_t *state = <uint64_t *>ctx
    cdef size_t i

    for i in range(length):
        state[0] = state[0] * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
        out[i] = <uint8_t>(state[0] >> 56)


# -- the two sides, their keys computed once --

cdef struct fuzz_keys:
    bint ready
    noise_identity identity[2]
    noise_remote remote[2]      # [i]: what side i keeps of the other

cdef fuzz_keys keys


cdef void prepare_keys() noexcept nogil:
    cdef uint8_t secret[32]
    cdef int i

    if keys.ready:
        return
    for i in range(2):
        memset(secret, i + 1, sizeof(secret))
        noise_set_identity(&keys.identity[i], secret)
    for i in range(2):
        memset(&keys.remote[i], 0, sizeof(keys.remote[i]))
        memcpy(keys.remote[i].public_key, keys.identity[1 - i].public_key, 32)
        noise_set_remote(&keys.remote[i], &keys.identity[i])
    keys.ready = True


cdef void address_of(int side, uint16_t port, endpoint *out) noexcept nogil:
    memset(out, 0, sizeof(out[0]))
    out.family = WT_AF_INET
    out.port = port
    memset(out.address, 192 + side, 4)


cdef wg_device *make_side(int side, uint64_t *random, uint64_t now_ns) noexcept nogil:
    """A device that is up and has the other one as its peer."""
    cdef wg_limits limits
    cdef wg_device *dev
    cdef wg_peer *peer
    cdef wg_prefix prefix
    cdef endpoint to

    memset(&limits, 0, sizeof(limits))
    limits.max_peers = 4
    limits.max_staged_packets = 4
    limits.staged_packet_bytes = 64
    limits.handshake_queue = 8
    limits.handshake_rate = 8
    limits.ratelimiter_entries = 8
    limits.outbox = 4
    limits.events = 4
    limits.build_unix_ns = 1700000000 * NS_PER_SECOND
    dev = wg_device_create(&limits, seeded, random)
    must(dev != NULL)
    # What set_private_key and peer_add do, without their Diffie-Hellman.
    peer = wg_peer_add(dev, keys.remote[side].public_key, NULL)
    must(peer != NULL)
    dev.identity = keys.identity[side]
    cookie_keys(dev.checker.mac1_key, dev.checker.cookie_key, dev.identity.public_key)
    peer.remote = keys.remote[side]
    memset(&prefix, 0, sizeof(prefix))
    prefix.family = WT_AF_INET
    prefix.address[0] = 10
    prefix.cidr = 8
    must(wg_peer_add_allowed_ip(dev, peer, &prefix) == 0)
    address_of(1 - side, 1, &to)
    wg_peer_set_endpoint(dev, now_ns, peer, &to)
    wg_device_up(dev, now_ns)
    return dev


# -- inspection --

cdef void inspect_peer(const wg_device *dev, wg_peer *peer, uint32_t *indices,
                       uint32_t *staged) noexcept nogil:
    cdef const wg_keypair *which[3]
    cdef const index_entry *entry
    cdef uint32_t slot = peer.staged_first, count = 0
    cdef int i

    which[0] = peer.current
    which[1] = peer.previous
    which[2] = peer.next
    must(which[0] == NULL or (which[0] != which[1] and which[0] != which[2]))
    must(which[1] == NULL or which[1] != which[2])
    for i in range(3):
        if which[i] != NULL:
            entry = index_table_lookup(&dev.indices, which[i].local_index)
            must(entry != NULL and entry.peer == peer)
            must(&peer.keypairs[entry.slot] == which[i])
            indices[0] += 1
    for i in range(3):
        must(peer.keypairs[i].local_index == 0 or &peer.keypairs[i] == which[0]
             or &peer.keypairs[i] == which[1] or &peer.keypairs[i] == which[2])
    if peer.handshake.local_index:
        entry = index_table_lookup(&dev.indices, peer.handshake.local_index)
        must(entry != NULL and entry.peer == peer and entry.slot == INDEX_SLOT_HANDSHAKE)
        indices[0] += 1
    while slot != STAGED_NONE:
        count += 1
        must(staged_at(dev, slot).next != STAGED_NONE or slot == peer.staged_last)
        slot = staged_at(dev, slot).next
    must(count == peer.staged_count)
    staged[0] += count
    for i in range(WG_TIMER_COUNT):
        must(peer.deadline_ns[i] >= peer.wake_ns)
    must((peer.wake_ns == WG_NEVER) == (peer.heap_at >= dev.heap_len))
    must(peer.links[LIST_TRANSMIT].linked or peer.wants == 0)


cdef void inspect(const wg_device *dev) noexcept nogil:
    cdef wg_peer *peer = dev.lists[LIST_ALL].first
    cdef uint32_t peers = 0, indices = 0, staged = 0, at, slot = dev.staged_free

    while peer != NULL:
        inspect_peer(dev, peer, &indices, &staged)
        peers += 1
        peer = peer.links[LIST_ALL].next
    must(peers == dev.peer_count and indices == dev.indices.used)
    for at in range(dev.heap_len):
        must(dev.heap[at].heap_at == at)
        must(at == 0 or dev.heap[(at - 1) // 2].wake_ns <= dev.heap[at].wake_ns)
    while slot != STAGED_NONE:
        staged += 1
        slot = staged_at(dev, slot).next
    must(staged == dev.limits.max_staged_packets)
    must(dev.queue_ring.count <= dev.queue_ring.capacity)
    must(dev.outbox_ring.count <= dev.outbox_ring.capacity)
    must(dev.event_ring.count <= dev.event_ring.capacity)


# -- one datagram --

cdef enum:
    FIX_TYPE_MASK = 3       # + 1 is the type
    FIX_INDEX = 4           # the receiver index is one of ours
    FIX_MAC1 = 8
    SEAL = 16               # transport data as the peer would seal it
    KEEP_TYPE = 32          # leave the type as it is
    LOADED = 64             # under load
    V6 = 128


cdef void fix_mac1(wg_device *dev, uint8_t *message, size_t size) noexcept nogil:
    blake2s(message + size - 32, 16, message, size - 32, dev.checker.mac1_key, 32)


cdef wg_keypair *fake_session(wg_device *dev, wg_peer *peer, uint64_t now_ns) noexcept nogil:
    cdef noise_keys session
    cdef wg_keypair *keypair

    memset(&session, 7, sizeof(session))
    keypair = keypair_begin(dev, now_ns, peer, False, 0)
    keypair_set_keys(keypair, &session, 99)
    return keypair


cdef void put_right(wg_device *dev, wg_keypair *keypair, wg_peer *peer, uint8_t flags,
                    uint8_t *message, size_t size) noexcept nogil:
    cdef aead_job job
    cdef uint32_t kind

    if size >= 4 and not flags & KEEP_TYPE:
        store_le32(message, (flags & FIX_TYPE_MASK) + 1)
    if size < 16:
        return
    kind = load_le32(message)
    if flags & FIX_INDEX and kind == 2:
        store_le32(message + 8, peer.handshake.local_index)
    elif flags & FIX_INDEX and kind > 2:
        store_le32(message + 4, peer.handshake.local_index if kind == 3
                   else keypair.local_index)
    if flags & FIX_MAC1 and (size == 148 or size == 92):
        fix_mac1(dev, message, size)
    if flags & SEAL and kind == 4 and size >= 32:
        job.key = keypair.receive_key
        job.counter = load_le64(message + 8)
        job.data = message + 16
        job.out = message + 16
        job.len = <uint32_t>(size - 32)
        aead_seal_batch(&job, 1)


cdef int fuzz_message(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint64_t random = 1, now_ns = NS_PER_SECOND
    cdef wg_device *dev
    cdef wg_peer *peer
    cdef wg_keypair *keypair
    cdef endpoint source
    cdef wg_inbound inbound
    cdef wg_transmit transmit
    cdef aead_job job
    cdef uint8_t *message
    cdef uint8_t flags
    cdef int verdict
    cdef bint sealed

    if size < 1 or size > 2049:
        return 0
    prepare_keys()
    flags = data[0]
    size -= 1
    message = <uint8_t *>malloc(size if size else 1)
    must(message != NULL)
    memcpy(message, data + 1, size)
    dev = make_side(0, &random, now_ns)
    peer = wg_peer_first(dev)
    keypair = fake_session(dev, peer, now_ns)
    peer.handshake.local_index = index_table_insert(dev, peer, INDEX_SLOT_HANDSHAKE)
    if flags & LOADED:
        dev.loaded_until_ns = now_ns + 1
    address_of(1, 2, &source)
    if flags & V6:
        source.family = WT_AF_INET6
    put_right(dev, keypair, peer, flags, message, size)
    sealed = flags & SEAL and size >= 32 and load_le32(message) == 4

    verdict = wg_receive_prepare(dev, now_ns, message, size, &source, &inbound, &job)
    if verdict == WG_IN_OPEN:
        must(job.data >= message and job.data + job.len + 16 == message + size)
        aead_open_batch(&job, 1)
        must(job.ok == sealed)
        verdict = wg_receive_finish(dev, now_ns, &inbound)
        must(sealed or verdict == WG_IN_DROPPED)
        if verdict == WG_IN_DELIVER:
            must(inbound.payload == message + 16 and inbound.length <= size - 32)
            must(inbound.length >= 20 and inbound.peer == peer)
    else:
        must(verdict == WG_IN_DROPPED or verdict == WG_IN_CONSUMED)
    wg_process_handshakes(dev, now_ns, 10)
    if not sealed:
        while wg_next_transmit(dev, now_ns, &transmit):
            # Only a cookie reply, under load, to who knew our public key.
            must(flags & LOADED and load_le32(transmit.data) == 3)
            must(transmit.length < size)
    inspect(dev)
    wg_device_destroy(dev)
    free(message)
    return 0


# -- two devices --

cdef enum:
    WIRE_SLOTS = 16
    WIRE_BYTES = 256
    MANY = 4096


cdef struct wire_slot:
    int sender
    bint changed
    size_t length
    uint8_t data[WIRE_BYTES]


cdef struct world:
    wg_device *dev[2]
    uint64_t random[2]
    uint64_t now_ns
    uint32_t next_id[2]         # of the next packet that a side sends
    uint8_t arrived[2][MANY]    # by receiver and id
    uint32_t used               # slots of the wire
    wire_slot wire[WIRE_SLOTS]


cdef void world_put(world *w, int sender, const uint8_t *data, size_t length) noexcept nogil:
    cdef wire_slot *slot

    must(length <= WIRE_BYTES)
    if w.used == WIRE_SLOTS:
        return  # lost
    slot = &w.wire[w.used]
    w.used += 1
    slot.sender = sender
    slot.changed = False
    slot.length = length
    memcpy(slot.data, data, length)


cdef void world_send(world *w, int side, const uint8_t *packet, uint32_t length,
                     wg_peer *peer, bint stage) noexcept nogil:
    cdef uint8_t buffer[WIRE_BYTES]
    cdef wg_outbound out
    cdef aead_job job
    cdef int verdict

    memcpy(buffer + WG_HEADER_LEN, packet, length)
    verdict = wg_send_prepare(w.dev[side], w.now_ns, peer, buffer, length, 100, &out, &job)
    if verdict == WG_OUT_STAGE:
        must(stage)
        wg_stage(w.dev[side], w.now_ns, peer, packet, length)
    elif verdict == WG_OUT_READY:
        must(job.counter < REJECT_AFTER_MESSAGES)
        aead_seal_batch(&job, 1)
        wg_send_done(w.dev[side], w.now_ns, peer, 1, out.length, True)
        world_put(w, side, buffer, out.length)


cdef void world_drain(world *w) noexcept nogil:
    cdef wg_transmit transmit
    cdef wg_event event
    cdef wg_peer *peer = NULL
    cdef const uint8_t *packet = NULL
    cdef uint8_t copy[64]
    cdef uint32_t length = 0
    cdef int side

    for side in range(2):
        wg_process_handshakes(w.dev[side], w.now_ns, 2)
        while wg_next_staged(w.dev[side], w.now_ns, &peer, &packet, &length):
            memcpy(copy, packet, length)
            world_send(w, side, copy, length, peer, False)
        while wg_next_transmit(w.dev[side], w.now_ns, &transmit):
            world_put(w, side, transmit.data, transmit.length)
        while wg_next_event(w.dev[side], &event):
            must(event.kind >= WG_EVENT_HANDSHAKE and event.kind <= WG_EVENT_TIMESTAMP_FLOOR)


cdef void world_receive(world *w, int side, uint8_t *data, size_t length, bint genuine,
                        uint16_t port) noexcept nogil:
    cdef endpoint source
    cdef wg_inbound inbound
    cdef aead_job job
    cdef uint32_t number

    address_of(1 - side, port, &source)
    if wg_receive_prepare(w.dev[side], w.now_ns, data, length, &source, &inbound,
                          &job) != WG_IN_OPEN:
        return
    aead_open_batch(&job, 1)
    if wg_receive_finish(w.dev[side], w.now_ns, &inbound) != WG_IN_DELIVER:
        return
    must(genuine and inbound.length == 24)
    number = load_le32(inbound.payload + 20)
    must(number < w.next_id[1 - side] and not w.arrived[side][number])
    w.arrived[side][number] = 1


cdef void world_step(world *w, uint8_t op, uint8_t argument) noexcept nogil:
    cdef int side = op >> 7
    cdef wg_device *dev = w.dev[side]
    cdef wg_peer *peer = wg_peer_first(dev)
    cdef wire_slot slot
    cdef uint8_t packet[24]
    cdef uint8_t secret[32]
    cdef wg_prefix prefix
    cdef endpoint to

    op &= 15
    if op == 0 and peer != NULL and w.next_id[side] < MANY:
        memset(packet, 10, sizeof(packet))
        packet[0] = 0x45
        store_be16(packet + 2, 24)
        store_le32(packet + 20, w.next_id[side])
        w.next_id[side] += 1
        world_send(w, side, packet, 24, peer, True)
    elif op == 1:
        w.now_ns += argument * NS_PER_MS
    elif op == 2:
        w.now_ns += argument * NS_PER_SECOND
    elif op <= 8 and w.used:
        argument %= <uint8_t>w.used
        slot = w.wire[argument]
        if op != 4:  # 4 keeps it for another time
            w.used -= 1
            w.wire[argument] = w.wire[w.used]
        if op == 5:
            return  # lost
        if op == 6:
            slot.data[argument * 7 % slot.length] ^= <uint8_t>(1 << (argument & 7))
            slot.changed = True
        world_receive(w, 1 - slot.sender, slot.data, slot.length, not slot.changed,
                      3 if op == 7 else 1)
    elif op == 9 and peer != NULL:
        wg_peer_initiate(dev, w.now_ns, peer)
    elif op == 10 and peer != NULL:
        wg_peer_expire_session(dev, peer)
    elif op == 11 and peer != NULL:
        wg_peer_set_keepalive(dev, w.now_ns, peer, argument)
    elif op == 12:
        wg_device_down(dev)
        wg_device_up(dev, w.now_ns)
    elif op == 13 and argument >= 128:
        wg_make_ahead(dev)
    elif op == 13 and peer != NULL:
        memset(secret, argument & 1, sizeof(secret))
        wg_peer_set_preshared_key(dev, peer, secret)
    elif op == 14 and argument < 16:
        wg_peer_remove_all(dev)
    elif op == 14 and peer == NULL:
        peer = wg_peer_add(dev, keys.remote[side].public_key, NULL)
        address_of(1 - side, 1, &to)
        wg_peer_set_endpoint(dev, w.now_ns, peer, &to)
        memset(&prefix, 0, sizeof(prefix))
        prefix.family = WT_AF_INET
        prefix.cidr = argument & 15
        prefix.address[0] = 10
        must(wg_peer_add_allowed_ip(dev, peer, &prefix) == 0)
    elif op == 15 and peer != NULL and peer.current != NULL and argument < 4:
        peer.current.send_counter = REJECT_AFTER_MESSAGES - argument


cdef int fuzz_device(const uint8_t *data, size_t size) noexcept nogil:
    cdef world *w
    cdef size_t at
    cdef int side

    if size > 512:
        return 0
    prepare_keys()
    w = <world *>malloc(sizeof(world))
    must(w != NULL)
    memset(w, 0, sizeof(w[0]))
    w.now_ns = NS_PER_SECOND
    for side in range(2):
        w.random[side] = side
        w.dev[side] = make_side(side, &w.random[side], w.now_ns)
    at = 0
    while at + 1 < size:
        world_step(w, data[at], data[at + 1])
        for side in range(2):
            if wg_poll_at(w.dev[side]) <= w.now_ns:
                wg_advance(w.dev[side], w.now_ns)
        while wg_poll_at(w.dev[0]) == 0 or wg_poll_at(w.dev[1]) == 0:
            world_drain(w)
        for side in range(2):
            must(wg_poll_at(w.dev[side]) > w.now_ns)
            inspect(w.dev[side])
        at += 2
    for side in range(2):
        wg_device_destroy(w.dev[side])
    free(w)
    return 0


# -- allowed IPs --

cdef enum:
    PREFIXES = 64


cdef struct naive_prefix:
    wg_prefix prefix
    int owner


cdef bint contains(const wg_prefix *prefix, const uint8_t *address) noexcept nogil:
    cdef uint32_t whole = prefix.cidr // 8, rest = prefix.cidr % 8

    if memcmp(prefix.address, address, whole):
        return False
    return rest == 0 or (prefix.address[whole] ^ address[whole]) >> (8 - rest) == 0


cdef uint32_t *first_of(void *owner) noexcept nogil:
    return <uint32_t *>owner


cdef int naive_find(const naive_prefix *model, int count, const wg_prefix *prefix) noexcept nogil:
    cdef int i

    for i in range(count):
        if (model[i].prefix.family == prefix.family and model[i].prefix.cidr == prefix.cidr
                and contains(&model[i].prefix, prefix.address)):
            return i
    return -1


cdef int naive_owner(const naive_prefix *model, int count, const wg_prefix *address) noexcept nogil:
    cdef int i, best = -1

    for i in range(count):
        if (model[i].prefix.family == address.family
                and contains(&model[i].prefix, address.address)
                and (best < 0 or model[i].prefix.cidr > model[best].prefix.cidr)):
            best = i
    return model[best].owner if best >= 0 else -1


cdef int fuzz_allowed_ips(const uint8_t *data, size_t size) noexcept nogil:
    """Steps of 6 bytes: what and whose, prefix length, and four of the address."""
    cdef allowed_ips table
    cdef naive_prefix model[PREFIXES]
    cdef uint32_t heads[4]
    cdef wg_prefix prefix
    cdef int count = 0, found, owner, i
    cdef uint8_t op
    cdef void *got

    memset(heads, 0, sizeof(heads))
    allowed_ips_init(&table, PREFIXES)
    while size >= 6:
        op = data[0] & 3
        owner = data[0] >> 2 & 3
        memset(&prefix, 0, sizeof(prefix))
        prefix.family = WT_AF_INET6 if data[0] & 128 else WT_AF_INET
        prefix.cidr = data[1] & 127 if data[0] & 128 else data[1] % 33
        if data[0] & 128 and data[1] == 255:
            prefix.cidr = 128
        memcpy(prefix.address, data + 2, 4)
        if data[0] & 128:
            memcpy(prefix.address + 7, data + 2, 4)  # across the middle
            memcpy(prefix.address + 12, data + 2, 4)
        found = naive_find(model, count, &prefix)
        if op <= 1:
            i = allowed_ips_insert(&table, &prefix, &heads[owner], first_of)
            must(i == (WG_ERROR_LIMIT if found < 0 and count == PREFIXES else 0))
            if found < 0 and i == 0:
                found = count
                count += 1
            if i == 0:
                model[found].prefix = prefix
                model[found].owner = owner
        elif op == 2:
            must(allowed_ips_remove(&table, &prefix, &heads[owner], first_of)
                 == (found >= 0 and model[found].owner == owner))
            if found >= 0 and model[found].owner == owner:
                count -= 1
                model[found] = model[count]
        elif data[1] < 16:
            allowed_ips_remove_owner(&table, &heads[owner])
            i = 0
            while i < count:
                if model[i].owner == owner:
                    count -= 1
                    model[i] = model[count]
                else:
                    i += 1
        got = (allowed_ips_lookup_v4(&table, prefix.address) if prefix.family == WT_AF_INET
               else allowed_ips_lookup_v6(&table, prefix.address))
        owner = naive_owner(model, count, &prefix)
        must(got == (<void *>&heads[owner] if owner >= 0 else NULL))
        must(table.prefixes == <uint32_t>count)
        data += 6
        size -= 6
    for i in range(4):
        allowed_ips_remove_owner(&table, &heads[i])
    must(table.root[0] == 0 and table.root[1] == 0 and table.prefixes == 0)
    allowed_ips_release(&table)
    return 0


# -- replay window --

cdef int fuzz_replay(const uint8_t *data, size_t size) noexcept nogil:
    """Steps of 3 bytes: a jump by its kind, its size, and back or forth."""
    cdef replay_window window
    cdef uint64_t accepted[256]
    cdef uint64_t counter = 0, top = 0
    cdef uint32_t count = 0, i
    cdef bint expect

    memset(&window, 0, sizeof(window))
    while size >= 3 and count < 256:
        i = <uint32_t>data[1] << 8 | data[2]
        if data[0] & 3 == 0:
            counter += i
        elif data[0] & 3 == 1:
            counter -= i
        elif data[0] & 3 == 2:
            counter = top + i - 128
        else:
            counter = REJECT_AFTER_MESSAGES - i if data[0] & 4 else top - REPLAY_WINDOW + i - 64
        expect = counter < REJECT_AFTER_MESSAGES
        for i in range(count):
            expect = expect and accepted[i] != counter
        if count and counter < top and top - counter > REPLAY_WINDOW:
            expect = False
        must(replay_accept(&window, counter) == expect)
        if expect:
            accepted[count] = counter
            count += 1
            top = counter if counter > top else top
        data += 3
        size -= 3
    return 0


ctypedef int (*target_fn)(const uint8_t *data, size_t size) noexcept nogil


def run(str name, bytes data):
    cdef target_fn target
    cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t size = len(data)
    cdef int result

    if name == "message":
        target = fuzz_message
    elif name == "device":
        target = fuzz_device
    elif name == "allowed_ips":
        target = fuzz_allowed_ips
    elif name == "replay":
        target = fuzz_replay
    else:
        raise KeyError(name)
    with nogil:
        result = target(start, size)
    return result
