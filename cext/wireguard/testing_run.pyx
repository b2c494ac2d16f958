# SPDX-License-Identifier: Apache-2.0
"""The long boring run: two devices, millions of packets, the GIL released; not in the firmware.

A network that loses, repeats and reorders now and then lies between them. Every packet
carries a number; the sum of those that arrive, with those that were lost on purpose, must
be the sum of those that were sent.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cext.base.endian cimport load_le64, store_le64
from cext.crypto.crypto cimport aead_job, aead_open_batch, aead_seal_batch
from cext.wire.endpoint cimport WT_AF_INET, endpoint
from cext.wireguard.constants cimport NS_PER_SECOND
from cext.wireguard.device cimport *
from cext.wireguard.receive cimport (
    wg_process_handshakes,
    wg_receive_finish,
    wg_receive_prepare,
)
from cext.wireguard.send cimport (
    wg_next_staged,
    wg_next_transmit,
    wg_route,
    wg_send_done,
    wg_send_prepare,
    wg_stage,
)
from cext.wireguard.testing cimport Device
from cext.wireguard.timers cimport wg_advance, wg_poll_at


cdef enum:
    RUN_BATCH = 64
    RUN_SLOT = 128
    RUN_INNER = 28


cdef struct run_side:
    wg_device *dev
    wg_peer *peer
    endpoint at
    uint64_t next_id        # of the next packet that this side sends
    uint64_t delivered      # packets that came in
    uint64_t id_sum         # their ids, so that none can stand in for another


cdef struct run_state:
    run_side side[2]
    uint64_t now_ns
    uint64_t sent
    uint64_t lost           # dropped on purpose
    uint64_t duplicated
    uint64_t refused        # duplicates that were refused
    uint64_t handshakes
    uint64_t wrong          # anything that must not happen
    bint plain              # leave the batches' cryptography out
    aead_job jobs[RUN_BATCH]
    wg_inbound inbound[RUN_BATCH]
    uint8_t buffers[RUN_BATCH * RUN_SLOT]
    uint8_t copies[RUN_BATCH * RUN_SLOT]


cdef void run_take(run_state *run, int to, wg_inbound *inbound, int verdict,
                   bint duplicate) noexcept nogil:
    cdef run_side *side = &run.side[to]

    if verdict == WG_IN_DELIVER and not duplicate and inbound.length == RUN_INNER:
        side.delivered += 1
        side.id_sum += load_le64(inbound.payload + 20)
    elif duplicate and verdict == WG_IN_DROPPED:
        run.refused += 1
    elif verdict != WG_IN_CONSUMED:
        run.wrong += 1


cdef void run_one(run_state *run, int to, uint8_t *datagram, size_t length) noexcept nogil:
    """A datagram that is not part of a batch."""
    cdef wg_inbound inbound
    cdef aead_job job
    cdef wg_device *dev = run.side[to].dev
    cdef int verdict = wg_receive_prepare(dev, run.now_ns, datagram, length,
                                          &run.side[1 - to].at, &inbound, &job)

    if verdict == WG_IN_OPEN:
        aead_open_batch(&job, 1)
        run_take(run, to, &inbound, wg_receive_finish(dev, run.now_ns, &inbound), False)
    elif verdict != WG_IN_CONSUMED:
        run.wrong += 1


cdef void run_settle(run_state *run) noexcept nogil:
    """Carry what the devices themselves want sent until both are quiet."""
    cdef wg_transmit transmit
    cdef wg_event event
    cdef wg_peer *peer = NULL
    cdef const uint8_t *packet = NULL
    cdef uint32_t length = 0
    cdef wg_outbound out
    cdef aead_job job
    cdef uint8_t buffer[RUN_SLOT]
    cdef bint quiet = False
    cdef int i

    while not quiet:
        quiet = True
        for i in range(2):
            wg_process_handshakes(run.side[i].dev, run.now_ns, 100)
            while wg_next_staged(run.side[i].dev, run.now_ns, &peer, &packet, &length):
                quiet = False
                memcpy(buffer + WG_HEADER_LEN, packet, length)
                if wg_send_prepare(run.side[i].dev, run.now_ns, peer, buffer, length, 1420,
                                   &out, &job) != WG_OUT_READY:
                    run.wrong += 1
                    continue
                aead_seal_batch(&job, 1)
                wg_send_done(run.side[i].dev, run.now_ns, peer, 1, out.length, True)
                run_one(run, 1 - i, buffer, out.length)
            while wg_next_transmit(run.side[i].dev, run.now_ns, &transmit):
                quiet = False
                run_one(run, 1 - i, transmit.data, transmit.length)
            while wg_next_event(run.side[i].dev, &event):
                run.handshakes += event.kind == WG_EVENT_HANDSHAKE


cdef void run_send(run_state *run, int source, uint32_t *count) noexcept nogil:
    """Fill the buffers with sealed packets."""
    cdef run_side *side = &run.side[source]
    cdef wg_outbound out
    cdef uint8_t *packet
    cdef int _i
    cdef int verdict

    count[0] = 0
    for _i in range(RUN_BATCH):
        packet = run.buffers + count[0] * RUN_SLOT + WG_HEADER_LEN
        memset(packet, 0, RUN_INNER)
        packet[0] = 0x45
        packet[3] = RUN_INNER
        packet[12] = 10
        packet[15] = <uint8_t>(source + 1)
        packet[16] = 10
        packet[19] = <uint8_t>(2 - source)
        store_le64(packet + 20, side.next_id)
        side.next_id += 1
        run.sent += 1
        if wg_route(side.dev, packet, RUN_INNER) != side.peer:
            run.wrong += 1
        verdict = wg_send_prepare(side.dev, run.now_ns, side.peer, packet - WG_HEADER_LEN,
                                  RUN_INNER, 1420, &out, &run.jobs[count[0]])
        if verdict == WG_OUT_STAGE:
            wg_stage(side.dev, run.now_ns, side.peer, packet, RUN_INNER)
        elif verdict == WG_OUT_READY:
            count[0] += 1
        else:
            run.wrong += 1
    if not run.plain:
        aead_seal_batch(run.jobs, count[0])
    wg_send_done(side.dev, run.now_ns, side.peer, count[0], <uint64_t>count[0] * 64, True)


cdef void run_open(run_state *run, uint32_t count) noexcept nogil:
    cdef uint32_t i

    if not run.plain:
        aead_open_batch(run.jobs, count)
        return
    for i in range(count):
        run.jobs[i].ok = True


cdef void run_batch(run_state *run, int source, uint64_t number) noexcept nogil:
    """One batch over a network that loses, repeats and reorders now and then."""
    cdef int to = 1 - source
    cdef wg_device *dev = run.side[to].dev
    cdef uint32_t count = 0, i, at, opened = 0

    run_send(run, source, &count)
    memcpy(run.copies, run.buffers, sizeof(run.copies))
    for i in range(count):
        at = count - 1 - i if number % 3 == 0 else i
        if (number + i) % 1009 == 0:
            run.lost += 1
            run.side[to].id_sum += load_le64_of(run, source, count, at)
            continue
        if wg_receive_prepare(dev, run.now_ns, run.buffers + at * RUN_SLOT, 64,
                              &run.side[source].at, &run.inbound[opened],
                              &run.jobs[opened]) != WG_IN_OPEN:
            run.wrong += 1
            continue
        opened += 1
    run_open(run, opened)
    for i in range(opened):
        run_take(run, to, &run.inbound[i], wg_receive_finish(dev, run.now_ns, &run.inbound[i]),
                 False)
    # The whole batch once more, every 50th time: each must be refused now.
    if number % 50:
        return
    opened = 0
    for i in range(count):
        if (number + (count - 1 - i if number % 3 == 0 else i)) % 1009 == 0:
            continue
        run.duplicated += 1
        if wg_receive_prepare(dev, run.now_ns, run.copies + i * RUN_SLOT, 64,
                              &run.side[source].at, &run.inbound[opened],
                              &run.jobs[opened]) != WG_IN_OPEN:
            run.wrong += 1
            continue
        opened += 1
    run_open(run, opened)
    for i in range(opened):
        run_take(run, to, &run.inbound[i], wg_receive_finish(dev, run.now_ns, &run.inbound[i]),
                 True)


cdef uint64_t load_le64_of(run_state *run, int source, uint32_t count,
                           uint32_t at) noexcept nogil:
    """The id of the packet in this buffer: the batch was numbered in order."""
    return run.side[source].next_id - count + at


cdef void run_all(run_state *run, uint64_t packets, uint64_t step_ns) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i

    while run.sent < packets:
        run.now_ns += step_ns
        for i in range(2):
            if wg_poll_at(run.side[i].dev) <= run.now_ns:
                wg_advance(run.side[i].dev, run.now_ns)
        run_settle(run)
        run_batch(run, number // 7 & 1, number)
        run_settle(run)
        number += 1


def long_run(uint64_t packets, uint64_t step_ns, uint64_t seed=1, bint plain=False):
    """Send `packets` between two devices, 64 every `step_ns` of virtual time."""
    cdef run_state *run = <run_state *>calloc(1, sizeof(run_state))
    cdef Device device
    cdef list devices = []
    cdef bytes secret, other
    cdef int i

    if run == NULL:
        raise MemoryError
    try:
        run.now_ns = NS_PER_SECOND
        run.plain = plain
        for i in range(2):
            device = Device(seed + i)
            secret = bytes([i + 1] * 32)
            device.set_private_key(secret)
            devices.append(device)
        for i in range(2):
            device = devices[i]
            other = devices[1 - i].keys()[1]
            device.add_peer(other)
            device.set_endpoint(run.now_ns, other, (bytes([192, 0, 2, 2 - i]), 1))
            device.add_allowed_ip(other, (bytes([10, 0, 0, 2 - i]), 32))
            device.up(run.now_ns)
            run.side[i].dev = device.dev
            run.side[i].peer = device.peer(other)
            run.side[i].at.family = WT_AF_INET
            run.side[i].at.port = 1
            memcpy(run.side[i].at.address, <const uint8_t *>b"\xc0\x00\x02", 3)
            run.side[i].at.address[3] = <uint8_t>(1 + i)
        with nogil:
            run_all(run, packets, step_ns)
        return {
            "sent": run.sent,
            "delivered": run.side[0].delivered + run.side[1].delivered,
            "lost": run.lost,
            "duplicated": run.duplicated,
            "refused": run.refused,
            "handshakes": run.handshakes,
            "wrong": run.wrong,
            "ids": run.side[0].id_sum + run.side[1].id_sum,
            "ids_sent": (run.side[0].next_id * (run.side[0].next_id - 1) // 2
                         + run.side[1].next_id * (run.side[1].next_id - 1) // 2),
            "drops": [devices[0].drops(), devices[1].drops()],
        }
    finally:
        free(run)
