# SPDX-License-Identifier: Apache-2.0
"""Two relays joined in memory, in virtual time; not part of the firmware.

What the tunnel would carry waits in a queue on each side; a turn takes a batch out of it,
as one receive call would, and lets one side do what pull() of the netport does.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING

from cext.engine.core cimport engine_core
from cext.engine.engine cimport fill_endpoint
from cext.engine.netport cimport netport_create, netport_destroy
from cext.engine.relay cimport (
    relay_close, relay_dial, relay_dialled, relay_events, relay_forward_tcp, relay_sockets,
    relay_splice,
)
from cext.engine.relay_table cimport BODY_BROKEN, BODY_ENDED, body_init, body_take, relay, relay_body
from cext.netstack.layout cimport NS_BATCH_MAX, address_from_v4, ns_packet
from cext.netstack.stack cimport (
    ns_add_address, ns_input, ns_input_end, ns_next_packets, ns_poll, ns_poll_at,
)
from cext.netstack.testing cimport stack_check
from cext.wire.endpoint cimport endpoint

def body_of(length, pieces):
    """What of `pieces` is the body of a request, None for a chunked one; and how it ended."""
    cdef relay_body body
    cdef bytes piece
    cdef uint32_t n
    found = b""
    body_init(&body, length is None, length or 0)
    for piece in pieces:
        n = body_take(&body, <const uint8_t *>PyBytes_AS_STRING(piece), <uint32_t>len(piece))
        found += piece[:n]
    return found, {BODY_ENDED: "ended", BODY_BROKEN: "broken"}.get(body.kind, "more")


# Only its ring of events is used, and nobody reads it.
cdef struct side:
    engine_core *core
    relay *r


cdef class RelayPair:
    """Relay 0 at 10.9.0.1 and relay 1 at 10.9.0.2. Time is nanoseconds since the start."""

    cdef side sides[2]
    cdef uint64_t start_ns
    cdef uint64_t passed_ns
    cdef list waiting

    def __cinit__(self, size_t memory=4 << 20):
        cdef uint8_t v4[4]
        cdef uint8_t address[16]
        cdef int i
        self.waiting = [[], []]
        for i in range(2):
            self.sides[i].core = <engine_core *>calloc(1, sizeof(engine_core))
            if self.sides[i].core == NULL:
                raise MemoryError
            self.sides[i].core.events.wake = -1
            self.sides[i].r = netport_create(self.sides[i].core, memory, 1420)
            if self.sides[i].r == NULL:
                raise MemoryError
            v4[0], v4[1], v4[2], v4[3] = 10, 9, 0, i + 1
            address_from_v4(address, v4)
            ns_add_address(self.sides[i].r.stack, address)
        self.start_ns = max(self.sides[0].r.stack.now_ns, self.sides[1].r.stack.now_ns)

    def __dealloc__(self):
        cdef int i
        for i in range(2):
            netport_destroy(self.sides[i].r)
            free(self.sides[i].core)

    cdef relay *at(self, int which) except NULL:
        return self.sides[which].r

    def forward(self, int which, uint16_t port, target):
        cdef endpoint to
        cdef uint32_t id = 0
        fill_endpoint(&to, target)
        return relay_forward_tcp(self.at(which), port, &to, &id), id

    def dial(self, int which, host, port):
        """(0 or -errno, id)."""
        cdef endpoint to
        cdef uint32_t id = 0
        fill_endpoint(&to, (host, port, 0))
        return relay_dial(self.at(which), &to, &id), id

    def dialled(self, int which):
        cdef uint32_t id
        cdef int error
        found = []
        while relay_dialled(self.at(which), &id, &error):
            found.append((id, error))
        return found

    def splice(self, int which, uint32_t id, int fd, bytes early=b"", request=None):
        """0, and the descriptor is the relay's; or -errno."""
        cdef uint8_t *copy = NULL
        cdef relay_body body
        cdef uint32_t head_len = 0
        cdef int error
        if request is not None:
            head_len, length = request
            body_init(&body, length is None, length or 0)
        if early:
            copy = <uint8_t *>malloc(len(early))
            memcpy(copy, PyBytes_AS_STRING(early), len(early))
        error = relay_splice(self.at(which), id, fd, copy, <uint32_t>len(early),
                             &body if request is not None else NULL, head_len)
        if error:
            free(copy)
        return error

    def close(self, int which, uint32_t id):
        return relay_close(self.at(which), id)

    def advance(self, uint64_t ns):
        self.passed_ns += ns

    def next_ns(self):
        """How long until a timer of either side is due; None for never."""
        cdef uint64_t now = self.start_ns + self.passed_ns
        due = [ns_poll_at(self.sides[i].r.stack) for i in range(2)]
        first = min(due)
        return None if first == 0xffffffffffffffffu else max(0, first - now)

    def turn(self, int which, most=256, lost=0):
        """Take a batch of at most `most` packets of which bits of `lost` name those that got
        lost, then work. True: something was done or waits."""
        cdef relay *r = self.at(which)
        cdef uint64_t now = self.start_ns + self.passed_ns
        cdef ns_packet packets[NS_BATCH_MAX]
        cdef uint32_t i, n
        cdef bint more
        cdef bytes packet
        queue = self.waiting[which]
        batch = [packet for at, packet in enumerate(queue[:most]) if not lost >> at & 1]
        busy = bool(batch)
        del queue[:most]
        for packet in batch:
            ns_input(r.stack, now, <const uint8_t *>PyBytes_AS_STRING(packet),
                     <uint32_t>len(packet), 1)
        ns_input_end(r.stack)
        ns_poll(r.stack, now)
        relay_events(r)
        more = relay_sockets(r, True)
        while True:
            n = ns_next_packets(r.stack, now, packets, NS_BATCH_MAX)
            if n == 0:
                break
            busy = True
            for i in range(n):
                self.waiting[1 - which].append((<char *>packets[i].data)[:packets[i].len])
        relay_events(r)
        return busy or more or bool(queue)

    def flows(self, int which):
        return self.at(which).used

    def bytes_moved(self, int which):
        """(into the host, out of it)."""
        return self.at(which).bytes_in, self.at(which).bytes_out

    def check(self):
        """0, or the number of the invariant that a stack breaks."""
        return stack_check(self.sides[0].r.stack) or stack_check(self.sides[1].r.stack)

    def blocks(self, int which):
        return self.at(which).stack.slab.used
