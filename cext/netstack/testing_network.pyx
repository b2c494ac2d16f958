# SPDX-License-Identifier: Apache-2.0
"""Two stacks joined by an impaired link each way, run natively in virtual time.

A link is a heap of packets by arrival, each in a place of exactly its size. Loss, rate, queue, delay, jitter, reordering,
duplicates and damaged bits come from one seeded generator, in this order for each
packet, so that a run repeats exactly.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset

from cext.netstack.layout cimport ns_packet
from cext.netstack.stack cimport ns_input, ns_input_end, ns_next_packets, ns_poll, ns_poll_at
from cext.netstack.testing cimport Stack, splitmix, stack_check


cdef enum:
    LINK_PACKETS = 32768
    LINK_BYTES = 9216
    BATCH = 256


cdef int link_create(link *l) except -1:
    memset(l, 0, sizeof(link))
    l.capacity = LINK_PACKETS
    l.heap = <uint32_t *> malloc(LINK_PACKETS * sizeof(uint32_t))
    l.spare = <uint32_t *> malloc(LINK_PACKETS * sizeof(uint32_t))
    l.packet = <wire_packet *> malloc(LINK_PACKETS * sizeof(wire_packet))
    if l.heap == NULL or l.spare == NULL or l.packet == NULL:
        raise MemoryError
    l.spares = LINK_PACKETS
    for i in range(LINK_PACKETS):
        l.spare[i] = LINK_PACKETS - 1 - i
    return 0


cdef void link_destroy(link *l) noexcept nogil:
    cdef uint32_t i

    for i in range(l.n):
        free(l.packet[l.heap[i]].data)
    free(l.heap)
    free(l.spare)
    free(l.packet)


cdef inline bint earlier(const link *l, uint32_t a, uint32_t b) noexcept nogil:
    if l.packet[a].at_ns != l.packet[b].at_ns:
        return l.packet[a].at_ns < l.packet[b].at_ns
    return l.packet[a].order < l.packet[b].order


cdef void link_put(link *l, const uint8_t *data, uint32_t length, uint64_t at_ns) noexcept nogil:
    cdef uint32_t slot, i, parent

    if l.spares == 0 or length > LINK_BYTES:
        l.overflowed += 1
        return
    l.spares -= 1
    slot = l.spare[l.spares]
    l.packet[slot].at_ns = at_ns
    l.packet[slot].order = l.order
    l.order += 1
    l.packet[slot].length = length
    l.packet[slot].data = <uint8_t *> malloc(length)
    if l.packet[slot].data == NULL:
        abort()
    memcpy(l.packet[slot].data, data, length)
    i = l.n
    l.n += 1
    while i > 0:
        parent = (i - 1) // 2
        if not earlier(l, slot, l.heap[parent]):
            break
        l.heap[i] = l.heap[parent]
        i = parent
    l.heap[i] = slot


cdef uint32_t link_pop(link *l) noexcept nogil:
    cdef uint32_t top = l.heap[0], slot, i = 0, child

    l.n -= 1
    slot = l.heap[l.n]
    while True:
        child = 2 * i + 1
        if child >= l.n:
            break
        if child + 1 < l.n and earlier(l, l.heap[child + 1], l.heap[child]):
            child += 1
        if not earlier(l, l.heap[child], slot):
            break
        l.heap[i] = l.heap[child]
        i = child
    l.heap[i] = slot
    return top


cdef class Network:
    """Stacks a and b and a link each way; everything follows from the seeds."""

    def __cinit__(self, Stack a, Stack b, seed=1):
        self.a = a
        self.b = b
        self.random_state = seed
        self.now_ns = a.now_ns
        link_create(&self.ab)
        link_create(&self.ba)

    def __dealloc__(self):
        link_destroy(&self.ab)
        link_destroy(&self.ba)

    def impair(self, which="both", delay_ms=0.0, jitter_ms=0.0, rate_mbit=0.0, queue_bytes=0,
               loss=0.0, duplicate=0.0, reorder=0.0, reorder_ms=0.0, corrupt=0.0):
        """Set a link: "ab", "ba" or "both". Probabilities from 0 to 1; 0 Mbit/s is unlimited."""
        cdef link *l
        cdef int i

        for i in range(2):
            if which == ("ba", "ab")[i]:
                continue
            l = &self.ab if i == 0 else &self.ba
            l.delay_ns = <uint64_t> (delay_ms * 1e6)
            l.jitter_ns = <uint64_t> (jitter_ms * 1e6)
            l.rate_bit_s = <uint64_t> (rate_mbit * 1e6)
            l.queue_bytes = queue_bytes
            l.loss_ppm = <uint32_t> (loss * 1e6)
            l.duplicate_ppm = <uint32_t> (duplicate * 1e6)
            l.reorder_ppm = <uint32_t> (reorder * 1e6)
            l.reorder_ns = <uint64_t> (reorder_ms * 1e6)
            l.corrupt_ppm = <uint32_t> (corrupt * 1e6)

    def link_status(self):
        return {"ab": (self.ab.sent, self.ab.lost, self.ab.overflowed),
                "ba": (self.ba.sent, self.ba.lost, self.ba.overflowed)}

    cdef void carry(self, link *l, const ns_packet *p) noexcept nogil:
        cdef uint64_t at = self.now_ns, start, chance = splitmix(&self.random_state)
        cdef uint8_t damaged[LINK_BYTES]
        cdef const uint8_t *data = p.data

        l.sent += 1
        if chance % 1000000 < l.loss_ppm:
            l.lost += 1
            return
        if l.rate_bit_s:
            start = l.free_at_ns if l.free_at_ns > at else at
            if l.queue_bytes and (start - at) // 8 * l.rate_bit_s // 1000000000 > l.queue_bytes:
                l.lost += 1
                return
            l.free_at_ns = start + <uint64_t> p.len * 8000000000u // l.rate_bit_s
            at = l.free_at_ns
        at += l.delay_ns
        if l.jitter_ns:
            at += splitmix(&self.random_state) % l.jitter_ns
        if l.reorder_ppm and splitmix(&self.random_state) % 1000000 < l.reorder_ppm:
            at += l.reorder_ns
        if l.corrupt_ppm and splitmix(&self.random_state) % 1000000 < l.corrupt_ppm:
            memcpy(damaged, data, p.len)
            damaged[splitmix(&self.random_state) % p.len] ^= <uint8_t> (
                1 << (splitmix(&self.random_state) % 8))
            data = damaged
        link_put(l, data, p.len, at)
        if l.duplicate_ppm and splitmix(&self.random_state) % 1000000 < l.duplicate_ppm:
            link_put(l, data, p.len, at + l.jitter_ns // 2)

    cdef void deliver(self, link *l, Stack to) noexcept nogil:
        cdef uint8_t *given[BATCH]
        cdef uint32_t slot, n = BATCH, i

        while n == BATCH:
            n = 0
            while n < BATCH and l.n and l.packet[l.heap[0]].at_ns <= self.now_ns:
                slot = link_pop(l)
                given[n] = l.packet[slot].data
                n += 1
                ns_input(to.s, self.now_ns, l.packet[slot].data, l.packet[slot].length, 0)
                l.spare[l.spares] = slot
                l.spares += 1
            # What is held for one call lies in the packets.
            ns_input_end(to.s)
            for i in range(n):
                free(given[i])

    cdef void flush(self, Stack source, link *l) noexcept nogil:
        cdef ns_packet out[128]
        cdef uint32_t n, i

        if source.is_native:
            source.app_events()
        while True:
            n = ns_next_packets(source.s, self.now_ns, out, 128)
            for i in range(n):
                self.carry(l, &out[i])
            if n < 128:
                break

    cdef int step(self) noexcept nogil:
        """Everything that happens now, then on to the next moment; 0 when nothing will."""
        cdef uint64_t next_ns = 0xffffffffffffffffu, at

        self.steps += 1
        self.flush(self.a, &self.ab)
        self.flush(self.b, &self.ba)
        if self.ab.n:
            next_ns = self.ab.packet[self.ab.heap[0]].at_ns
        if self.ba.n and self.ba.packet[self.ba.heap[0]].at_ns < next_ns:
            next_ns = self.ba.packet[self.ba.heap[0]].at_ns
        at = ns_poll_at(self.a.s)
        if at < next_ns:
            next_ns = at
        at = ns_poll_at(self.b.s)
        if at < next_ns:
            next_ns = at
        if self.a.native.stall_permille or self.b.native.stall_permille:
            self.a.app_resume()
            self.b.app_resume()
            # Who stalled again is asked again soon, even when no timer runs any more.
            if (self.a.app_stalls() or self.b.app_stalls()) and \
                    next_ns > self.now_ns + 1000000:
                next_ns = self.now_ns + 1000000
        if next_ns == 0xffffffffffffffffu:
            return 0
        if next_ns > self.now_ns:
            self.now_ns = next_ns
        self.deliver(&self.ab, self.b)
        self.deliver(&self.ba, self.a)
        ns_poll(self.a.s, self.now_ns)
        ns_poll(self.b.s, self.now_ns)
        self.a.now_ns = self.b.now_ns = self.now_ns
        if self.a.is_native:
            self.a.app_events()
        if self.b.is_native:
            self.b.app_events()
        return 1

    def run(self, seconds=None, until_finished=0, check=False, max_steps=0):
        """Run until the time is over, so many native flows of `a` ended, or nothing is
        left to do; the virtual seconds that passed. `check` looks at the invariants after
        each step and raises AssertionError."""
        cdef uint64_t start = self.now_ns, end = 0xffffffffffffffffu, steps = 0
        cdef uint64_t most = max_steps
        cdef uint32_t wanted = until_finished
        cdef bint checking = check
        cdef int broken = 0

        if seconds is not None:
            end = start + <uint64_t> (seconds * 1e9)
        with nogil:
            while self.now_ns < end:
                if wanted and self.a.native.finished + self.a.native.failed >= wanted:
                    break
                if self.step() == 0:
                    break
                steps += 1
                if most and steps >= most:
                    break
                if checking:
                    broken = stack_check(self.a.s)
                    if broken == 0:
                        broken = stack_check(self.b.s)
                    if broken:
                        break
        assert broken == 0, f"invariant {broken} at {self.now_ns - start} ns"
        return (self.now_ns - start) / 1e9
