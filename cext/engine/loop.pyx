# SPDX-License-Identifier: Apache-2.0
"""The poll loop: one turn looks at everything that is ready, a bounded amount of each.

    wait -> commands -> datagrams in -> handshakes -> staged packets
         -> inner packets out -> timers -> the device's own messages -> events

The wait is for a descriptor or the next timer; it is skipped while the last turn
left something undone. When it has lasted QUIET_NS for nothing, something of a
handshake to come is made ahead.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cext.engine.core cimport (
    EVENT_ENDPOINT,
    EVENT_HANDSHAKE,
    EVENT_HANDSHAKE_GIVEN_UP,
    EVENT_TIMESTAMP_FLOOR,
    EVENTS_DELAY_NS,
    HANDSHAKES_PER_TURN,
    IN_TURN_ROUNDS,
    QUIET_NS,
    engine_core,
    event_put,
    event_tell,
)
from cext.engine.inbound cimport inbound_round
from cext.engine.outbound cimport outbound_flush, outbound_staged, outbound_transmits
from cext.host.clock cimport clock_now_ns, clock_unix_ns
from cext.host.loop cimport (
    LOOP_EVENTS_MAX,
    LOOP_FAILED,
    LOOP_READABLE,
    loop_event,
    loop_wait,
)
from cext.host.thread cimport gate_close, gate_serve, thread_prefer_latency
from cext.wireguard.device cimport (
    WG_EVENT_ENDPOINT,
    WG_EVENT_HANDSHAKE,
    WG_EVENT_HANDSHAKE_GIVEN_UP,
    WG_EVENT_TIMESTAMP_FLOOR,
    WG_NEVER,
    wg_device_set_unix_time,
    wg_event,
    wg_make_ahead,
    wg_next_event,
    wg_wants_ahead,
)
from cext.wireguard.receive cimport wg_process_handshakes
from cext.wireguard.timers cimport wg_advance, wg_poll_at

cdef enum:
    # How old the device's idea of the wall clock may become.
    UNIX_TIME_EVERY_NS = 500_000_000


cdef void tell_time(engine_core *core, uint64_t now_ns) noexcept nogil:
    if now_ns - core.unix_time_at_ns >= UNIX_TIME_EVERY_NS:
        core.unix_time_at_ns = now_ns
        wg_device_set_unix_time(core.device, now_ns, clock_unix_ns())


cdef void forward_events(engine_core *core) noexcept nogil:
    cdef wg_event event
    cdef uint32_t kind
    while wg_next_event(core.device, &event):
        if event.kind == WG_EVENT_HANDSHAKE:
            kind = EVENT_HANDSHAKE
        elif event.kind == WG_EVENT_HANDSHAKE_GIVEN_UP:
            kind = EVENT_HANDSHAKE_GIVEN_UP
        elif event.kind == WG_EVENT_ENDPOINT:
            kind = EVENT_ENDPOINT
        elif event.kind == WG_EVENT_TIMESTAMP_FLOOR:
            kind = EVENT_TIMESTAMP_FLOOR
        else:
            continue
        event_put(&core.events, kind, event.public_key, event.unix_ns)


cdef void tell_events(engine_core *core, uint64_t now_ns) noexcept nogil:
    """Wake the interpreter EVENTS_DELAY_NS after the first event that it does not know of."""
    if not core.events.unsaid:
        core.tell_at_ns = WG_NEVER
    elif core.tell_at_ns == WG_NEVER:
        core.tell_at_ns = now_ns + EVENTS_DELAY_NS
    elif core.tell_at_ns <= now_ns:
        core.tell_at_ns = WG_NEVER
        event_tell(&core.events)


cdef uint64_t next_timer(engine_core *core) noexcept nogil:
    cdef uint64_t at = min(wg_poll_at(core.device), core.tell_at_ns)
    if core.port != NULL and core.port.poll_at != NULL:
        at = min(at, core.port.poll_at(core.port.context))
    if core.stack != NULL:
        at = min(at, core.stack.poll_at(core.stack.context))
    return at


cdef uint32_t wait(engine_core *core, bint busy) noexcept nogil:
    """Return a bit for each TAG_ that is ready."""
    cdef loop_event ready[LOOP_EVENTS_MAX]
    cdef uint64_t now_ns, at
    cdef int64_t timeout_ns = 0
    cdef uint32_t tags = 0
    cdef bint ahead = False
    cdef int i, n
    if not busy:
        at = next_timer(core)
        ahead = wg_wants_ahead(core.device)
        timeout_ns = -1
        if ahead or at != WG_NEVER:
            now_ns = clock_now_ns()
            ahead = ahead and at > now_ns + QUIET_NS
            if ahead:
                at = now_ns + QUIET_NS
            timeout_ns = <int64_t>(at - now_ns) if at > now_ns else 0
    n = loop_wait(core.loop, ready, timeout_ns)
    if ahead and n == 0:
        wg_make_ahead(core.device)
    for i in range(n):
        if ready[i].flags & (LOOP_READABLE | LOOP_FAILED):
            tags |= <uint32_t>1 << ready[i].tag
    return tags


cdef bint has(uint32_t tags, int tag) noexcept nogil:
    return tags >> tag & 1


cdef void take_datagrams(engine_core *core, uint64_t now_ns, uint32_t tags) noexcept nogil:
    cdef int family, _
    for family in range(2):
        if not has(tags, TAG_UDP_V4 + family):
            continue
        for _ in range(IN_TURN_ROUNDS):
            if not inbound_round(core, now_ns, family):
                break


cdef bint turn(engine_core *core, uint32_t tags) noexcept nogil:
    """Do what is ready; return whether to come back without waiting."""
    cdef uint64_t now_ns = clock_now_ns()
    cdef bint busy = False
    core.statistics.turns += 1
    core.out.flushes = 0
    tell_time(core, now_ns)
    if has(tags, TAG_COMMAND):
        gate_serve(&core.gate, core)
        now_ns = clock_now_ns()
    take_datagrams(core, now_ns, tags)
    if wg_process_handshakes(core.device, now_ns, HANDSHAKES_PER_TURN):
        busy = True
    outbound_staged(core, now_ns)
    if core.port != NULL and (has(tags, TAG_INNER) or core.port.poll_at != NULL):
        # Level-triggered: what pull() leaves makes the descriptor ready at once.
        core.port.pull(core.port.context, now_ns)
    if core.stack != NULL:
        core.stack_ready |= has(tags, TAG_RELAY)
        busy |= core.stack.pull(core.stack.context, now_ns)
    outbound_flush(core, now_ns)
    if wg_poll_at(core.device) <= now_ns:
        wg_advance(core.device, now_ns)
        outbound_staged(core, now_ns)
        outbound_flush(core, now_ns)
    outbound_transmits(core, now_ns)
    forward_events(core)
    tell_events(core, now_ns)
    return busy


cdef void engine_main(void *argument) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef bint busy = False
    thread_prefer_latency()
    while not core.stopping:
        busy = turn(core, wait(core, busy))
    gate_close(&core.gate)
