# SPDX-License-Identifier: Apache-2.0
"""Commands of the interpreter, run on the native thread between two batches."""

from libc.errno cimport EBUSY
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from cext.base.drops cimport DROP_REASON_COUNT
from cext.engine.core cimport core_memory_bytes, core_size_buffers, engine_core
from cext.engine.loop cimport TAG_INNER, TAG_UDP_V4
from cext.engine.netport cimport netport_add_drops, netport_memory_bytes
from cext.engine.relay_table cimport relay
from cext.host.clock cimport clock_now_ns
from cext.host.loop cimport loop_forget, loop_watch
from cext.host.tun cimport (
    TUN_NONE,
    tun,
    tun_close,
    tun_link,
    tun_look,
    tun_set_mtu,
    tun_statistics,
)
from cext.host.udp cimport (
    udp_close,
    udp_open,
    udp_port,
    udp_set_fwmark,
    udp_set_interface,
)
from cext.wireguard.device cimport (
    wg_device_clear_sources,
    wg_device_down,
    wg_device_keys,
    wg_device_set_private_key,
    wg_device_set_timestamp_floor,
    wg_device_up,
    wg_drops,
    wg_memory_bytes,
    wg_peer,
    wg_peer_add,
    wg_peer_add_allowed_ip,
    wg_peer_after,
    wg_peer_expire_session,
    wg_peer_find,
    wg_peer_first,
    wg_peer_get_status,
    wg_peer_initiate,
    wg_peer_next_allowed_ip,
    wg_peer_remove,
    wg_peer_remove_all,
    wg_peer_remove_allowed_ip,
    wg_peer_remove_allowed_ips,
    wg_peer_set_endpoint,
    wg_peer_set_keepalive,
    wg_peer_set_preshared_key,
)


cdef int command_stop(void *core, void *unused) noexcept nogil:
    (<engine_core *>core).stopping = True
    return 0


# -- outer side --

cdef int watch_sockets(engine_core *core) noexcept nogil:
    cdef int family, error
    for family in range(2):
        if core.udp.fd[family] >= 0:
            error = loop_watch(core.loop, core.udp.fd[family], <uint32_t>(TAG_UDP_V4 + family),
                               False)
            if error:
                return error
    return 0


cdef int command_up(void *argument, void *unused) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef int error
    if core.is_up:
        return core.udp.port
    error = udp_open(&core.udp, core.listen_port)
    if error:
        return error
    error = watch_sockets(core)
    if error:
        udp_close(&core.udp)
        return error
    core.is_up = True
    wg_device_up(core.device, clock_now_ns())
    return core.udp.port


cdef int command_down(void *argument, void *unused) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    if core.is_up:
        wg_device_down(core.device)
        udp_close(&core.udp)  # which takes them out of the epoll set
        core.is_up = False
    return 0


cdef int command_set_listen_port(void *argument, void *uint16_port) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef uint16_t port = (<uint16_t *>uint16_port)[0]
    cdef udp_port fresh, old
    cdef int error
    if not core.is_up:
        core.listen_port = port
        return port
    if port and port == core.udp.port:
        core.listen_port = port
        return port
    # The new sockets first, so that a port that is taken leaves the old ones.
    old = core.udp
    fresh = core.udp
    fresh.fd[0] = -1
    fresh.fd[1] = -1
    error = udp_open(&fresh, port)
    if error:
        return error
    core.udp = fresh
    error = watch_sockets(core)
    if error:
        udp_close(&core.udp)
        core.udp = old
        return error
    udp_close(&old)
    core.listen_port = port
    return core.udp.port


cdef int command_set_fwmark(void *core, void *uint32_mark) noexcept nogil:
    return udp_set_fwmark(&(<engine_core *>core).udp, (<uint32_t *>uint32_mark)[0])


cdef int command_set_interface(void *core, void *name) noexcept nogil:
    return udp_set_interface(&(<engine_core *>core).udp, <const char *>name)


cdef int command_source_changed(void *core, void *unused) noexcept nogil:
    wg_device_clear_sources((<engine_core *>core).device)
    return 0


# -- inner side --

cdef int command_detach(void *argument, void *unused) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    core.port = NULL
    if core.tun.kind != TUN_NONE:
        loop_forget(core.loop, core.tun.fd)
        tun_close(&core.tun)
    return 0


cdef int command_attach(void *argument, void *opened_tun) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef tun *opened = <tun *>opened_tun
    cdef tun_statistics statistics = core.tun.statistics
    # Before the old one goes: a descriptor that cannot be watched changes nothing.
    cdef int error
    if core.tun.kind != TUN_NONE and core.tun.fd == opened.fd:
        return -EBUSY
    error = loop_watch(core.loop, opened.fd, TAG_INNER, False)
    if error:
        return error
    command_detach(core, NULL)
    core.tun = opened[0]
    core.tun.statistics = statistics
    core.port = &core.host_port
    core_size_buffers(core, core.tun.mtu)
    return 0


cdef int command_set_mtu(void *argument, void *uint32_mtu) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef int error = tun_set_mtu(&core.tun, (<uint32_t *>uint32_mtu)[0])
    if error == 0:
        core_size_buffers(core, core.tun.mtu)
    return error


cdef int command_look(void *argument, void *link) noexcept nogil:
    return tun_look(&(<engine_core *>argument).tun, <tun_link *>link)


# -- WireGuard --

cdef int command_set_private_key(void *core, void *key_or_null) noexcept nogil:
    wg_device_set_private_key((<engine_core *>core).device, <const uint8_t *>key_or_null)
    return 0


cdef int command_set_timestamp_floor(void *core, void *uint64_ns) noexcept nogil:
    wg_device_set_timestamp_floor((<engine_core *>core).device, (<uint64_t *>uint64_ns)[0])
    return 0


cdef int command_set_peer(void *argument, void *what) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef peer_change *change = <peer_change *>what
    cdef uint64_t now_ns = clock_now_ns()
    cdef int error = 0
    cdef size_t i
    cdef wg_peer *peer = wg_peer_find(core.device, change.public_key)
    change.found = peer != NULL
    if peer == NULL:
        if change.mask & CHANGE_UPDATE_ONLY:
            return 0
        peer = wg_peer_add(core.device, change.public_key, &error)
        if peer == NULL:
            return error
        change.found = True
    if change.mask & CHANGE_PRESHARED_KEY:
        wg_peer_set_preshared_key(core.device, peer, change.preshared_key)
    if change.mask & CHANGE_ENDPOINT:
        wg_peer_set_endpoint(core.device, now_ns, peer, &change.to)
    if change.mask & CHANGE_REPLACE_ALLOWED_IPS:
        wg_peer_remove_allowed_ips(core.device, peer)
    for i in range(change.removed_count):
        wg_peer_remove_allowed_ip(core.device, peer, &change.removed[i])
    for i in range(change.added_count):
        error = wg_peer_add_allowed_ip(core.device, peer, &change.added[i])
        if error:
            return error
    # Last: it may send something, which needs all of the above.
    if change.mask & CHANGE_KEEPALIVE:
        wg_peer_set_keepalive(core.device, now_ns, peer, change.keepalive_s)
    return 0


cdef int command_remove_peer(void *argument, void *public_key) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef wg_peer *peer = wg_peer_find(core.device, <const uint8_t *>public_key)
    if peer == NULL:
        return 0
    wg_peer_remove(core.device, peer)
    return 1


cdef int command_remove_all_peers(void *core, void *unused) noexcept nogil:
    wg_peer_remove_all((<engine_core *>core).device)
    return 0


cdef int command_initiate(void *argument, void *public_key) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef wg_peer *peer = wg_peer_find(core.device, <const uint8_t *>public_key)
    if peer == NULL:
        return 0
    wg_peer_initiate(core.device, clock_now_ns(), peer)
    return 1


cdef int command_expire_session(void *argument, void *public_key) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef wg_peer *peer = wg_peer_find(core.device, <const uint8_t *>public_key)
    if peer == NULL:
        return 0
    wg_peer_expire_session(core.device, peer)
    return 1


# -- observing --

cdef bint add_prefixes(engine_core *core, wg_peer *peer, snapshot *part) noexcept nogil:
    """Return whether all prefixes of the peer found room."""
    cdef uint32_t cursor
    while part.prefix_count < SNAPSHOT_PREFIXES:
        cursor = part.cursor
        if not wg_peer_next_allowed_ip(core.device, peer, &cursor,
                                       &part.prefixes[part.prefix_count]):
            part.cursor = 0
            return True
        part.cursor = cursor
        part.owner[part.prefix_count] = part.peer_count - 1
        part.prefix_count += 1
    return False


cdef int command_snapshot(void *argument, void *into) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef snapshot *part = <snapshot *>into
    cdef uint64_t now_ns = clock_now_ns()
    cdef wg_peer *peer = wg_peer_first(core.device)
    cdef uint32_t _
    part.has_key = wg_device_keys(core.device, part.private_key, part.public_key)
    part.listen_port = core.udp.port
    part.fwmark = core.udp.fwmark
    part.peer_count = 0
    part.prefix_count = 0
    part.complete = False
    part.first_is_new = part.cursor == 0
    for _ in range(part.index):
        if peer == NULL:
            break
        peer = wg_peer_after(peer)
    while peer != NULL and part.peer_count < SNAPSHOT_PEERS:
        wg_peer_get_status(core.device, now_ns, peer, &part.peers[part.peer_count])
        part.peer_count += 1
        if not add_prefixes(core, peer, part):
            return 0
        part.index += 1
        peer = wg_peer_after(peer)
    part.complete = peer == NULL
    return 0


cdef int command_counters(void *argument, void *target) noexcept nogil:
    cdef engine_core *core = <engine_core *>argument
    cdef counters *into = <counters *>target
    core.statistics.commands += 1
    memcpy(into.drops, wg_drops(core.device), DROP_REASON_COUNT * sizeof(uint64_t))
    netport_add_drops(<relay *>core.relay, into.drops)
    into.engine = core.statistics
    into.udp = core.udp.statistics
    into.tun = core.tun.statistics
    into.events_lost = core.events.lost
    into.memory_bytes = (core_memory_bytes(core) + wg_memory_bytes(core.device)
                         + netport_memory_bytes(<relay *>core.relay))
    into.udp_features = core.udp.features
    into.tun_features = core.tun.features
    into.tun_is_open = core.tun.kind != TUN_NONE
    return 0
