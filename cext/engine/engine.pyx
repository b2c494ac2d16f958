# SPDX-License-Identifier: Apache-2.0
# cython: warn.undeclared=False
"""The engine as Python sees it: arguments to structs, structs to tuples, nothing per packet.

Every method builds a struct on its own stack, passes it through the gate with the
GIL released and turns what comes back into Python. engine.pyi is the contract.
"""

import os
import socket
import threading
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from libc.errno cimport ENODEV, EOPNOTSUPP
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING

from cext.base.drops cimport DROP_REASON_COUNT, drop_counters, drop_reason, drop_reason_name
from cext.base.secret cimport secret_erase
from cext.engine cimport core as c
from cext.engine.commands cimport (
    CHANGE_ENDPOINT,
    CHANGE_KEEPALIVE,
    CHANGE_PRESHARED_KEY,
    CHANGE_REPLACE_ALLOWED_IPS,
    CHANGE_UPDATE_ONLY,
    command,
    command_attach,
    command_counters,
    command_detach,
    command_down,
    command_expire_session,
    command_initiate,
    command_look,
    command_remove_all_peers,
    command_remove_peer,
    command_set_fwmark,
    command_set_interface,
    command_set_listen_port,
    command_set_mtu,
    command_set_peer,
    command_set_private_key,
    command_set_timestamp_floor,
    command_snapshot,
    command_source_changed,
    command_stop,
    command_up,
    counters,
    peer_change,
    snapshot,
)
from cext.engine.core cimport (
    ENGINE_MTU_MAX,
    ENGINE_MTU_MIN,
    core_create,
    core_destroy,
    core_memory_bytes,
    engine_event,
    event_take,
)
from cext.engine.loop cimport TAG_COMMAND, engine_main
from cext.engine.netport cimport netport_destroy, netport_detach
from cext.engine.port cimport port_init
from cext.host.clock cimport entropy_fill
from cext.host.features cimport (
    HOST_ALL_FEATURES,
    HOST_FEATURE_COUNT,
    HOST_GSO_MAX,
    HOST_TSO,
    HOST_USO,
    HOST_VNET_HDR,
    host_feature_name,
    host_probe,
)
from cext.host.loop cimport loop_close, loop_watch, wake_clear, wake_close
from cext.host.thread cimport (
    WORKERS_MAX,
    gate_open,
    gate_pass,
    thread_join,
    thread_start,
    workers_start,
    workers_stop,
)
from cext.host.tun cimport (
    tun,
    tun_attach,
    tun_attach_socket,
    tun_close,
    tun_init,
    tun_link,
    tun_open,
)
from cext.host.udp cimport udp_close
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6
from cext.wire.endpoint cimport endpoint as wire_endpoint
from cext.wireguard.device cimport (
    WG_ERROR_LIMIT,
    WG_ERROR_NO_MEMORY,
    WG_ERROR_OWN_KEY,
    WG_KEY_LEN,
    wg_device_create,
    wg_device_destroy,
    wg_memory_bytes,
    wg_peer_status,
    wg_prefix,
)

EVENT_HANDSHAKE = c.EVENT_HANDSHAKE
EVENT_HANDSHAKE_GIVEN_UP = c.EVENT_HANDSHAKE_GIVEN_UP
EVENT_ENDPOINT = c.EVENT_ENDPOINT
EVENT_SOURCE_LOST = c.EVENT_SOURCE_LOST
EVENT_TIMESTAMP_FLOOR = c.EVENT_TIMESTAMP_FLOOR
EVENT_INNER_CLOSED = c.EVENT_INNER_CLOSED
EVENT_SOCKET_ERROR = c.EVENT_SOCKET_ERROR
EVENT_DIALLED = c.EVENT_DIALLED

cdef enum:
    # Limits of a device that has to share less than MEMORY_LIMIT_FULL.
    SMALL_STAGED = 64
    SMALL_QUEUE = 64
    SMALL_RATELIMITER = 512
    SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
    SMALL_SOCKET_BUFFER_BYTES = 256 * 1024


class EngineStopped(RuntimeError):
    pass


class Endpoint(NamedTuple):
    host: str
    port: int
    scope_id: int = 0


class PeerStatus(NamedTuple):
    public_key: bytes
    preshared_key: bytes
    endpoint: Endpoint | None
    allowed_ips: tuple[str, ...]
    keepalive_s: int
    last_handshake_unix_ns: int
    rx_bytes: int
    tx_bytes: int
    handshake_attempts: int
    handshake_duration_ns: int


class DeviceStatus(NamedTuple):
    private_key: bytes | None
    public_key: bytes | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerStatus, ...]


class TunInfo(NamedTuple):
    name: str
    ifindex: int
    features: tuple[str, ...]


class InnerLink(NamedTuple):
    ifindex: int
    mtu_bytes: int
    is_up: bool


class Event(NamedTuple):
    kind: int
    public_key: bytes
    value: int


# -- between Python and the structs --

cdef const uint8_t *key_bytes(str what, bytes key) except NULL:
    if len(key) != WG_KEY_LEN:
        raise ValueError(f"{what} has {len(key)} bytes, it needs {WG_KEY_LEN}")
    return <const uint8_t *>PyBytes_AS_STRING(key)


cdef int fill_endpoint(wire_endpoint *to, object given) except -1:
    host, port, scope_id = given
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(f"endpoint: {host!r} is no numeric address; resolve it first") from None
    if not 0 < port < 65536:
        raise ValueError(f"endpoint: port {port} is not within 1 to 65535")
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    cdef bytes packed = address.packed
    memset(to, 0, sizeof(wire_endpoint))
    to.family = WT_AF_INET if len(packed) == 4 else WT_AF_INET6
    to.port = port
    # "fe80::1%3" carries its zone in the text.
    to.scope_id = scope_id or zone_index(getattr(address, "scope_id", None))
    memcpy(to.address, PyBytes_AS_STRING(packed), len(packed))
    return 0


cdef object zone_index(object zone):
    if zone is None:
        return 0
    try:
        return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    except OSError:
        raise ValueError(f"endpoint: there is no interface {zone}") from None


cdef object read_endpoint(const wire_endpoint *e):
    cdef const char *address = <const char *>e.address
    if e.family == WT_AF_INET:
        return Endpoint(socket.inet_ntop(socket.AF_INET, address[:4]), e.port, 0)
    if e.family == WT_AF_INET6:
        return Endpoint(socket.inet_ntop(socket.AF_INET6, address[:16]), e.port, e.scope_id)
    return None


cdef wg_prefix *make_prefixes(str what, object texts) except? NULL:
    """Return an array to be freed, NULL for no texts."""
    cdef Py_ssize_t i, n = len(texts)
    cdef wg_prefix *prefixes
    cdef bytes packed
    if n == 0:
        return NULL
    prefixes = <wg_prefix *>malloc(n * sizeof(wg_prefix))
    if prefixes == NULL:
        raise MemoryError
    try:
        for i in range(n):
            try:
                network = ip_network(texts[i], strict=False)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from None
            packed = network.network_address.packed
            memset(&prefixes[i], 0, sizeof(wg_prefix))
            prefixes[i].family = WT_AF_INET if len(packed) == 4 else WT_AF_INET6
            prefixes[i].cidr = network.prefixlen
            memcpy(prefixes[i].address, PyBytes_AS_STRING(packed), len(packed))
    except BaseException:
        free(prefixes)
        raise
    return prefixes


cdef object read_prefix(const wg_prefix *p):
    """Return something that sorts as people expect, the text last."""
    cdef Py_ssize_t size = 4 if p.family == WT_AF_INET else 16
    cdef bytes packed = (<const char *>p.address)[:size]
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    return (p.family, packed, p.cidr, f"{socket.inet_ntop(family, packed)}/{p.cidr}")


cdef tuple feature_names(uint32_t features):
    cdef unsigned int i
    return tuple([host_feature_name(i).decode() for i in range(HOST_FEATURE_COUNT)
                  if features & 1u << i])


cdef object os_error(int result, object name=None):
    """Make the exception for a negative errno."""
    return OSError(-result, os.strerror(-result), name)


cdef void fill_random(void *unused, uint8_t *out, size_t length) noexcept nogil:
    # The source was there at start; keys made of anything else must not exist.
    if entropy_fill(out, length) < 0:
        abort()


cdef class Engine:
    def __cinit__(self, *, size_t memory_limit_bytes=c.MEMORY_LIMIT_DEFAULT, int threads=1,
                  int mtu=1420, disable=frozenset()):
        cdef uint32_t features = HOST_ALL_FEATURES
        cdef uint8_t probe = 0
        cdef unsigned int i
        names = {host_feature_name(i).decode(): i for i in range(HOST_FEATURE_COUNT)}
        unknown = sorted(set(disable) - set(names))
        if unknown:
            raise ValueError(f"disable: {unknown[0]!r} is none of {', '.join(names)}")
        if memory_limit_bytes < c.MEMORY_LIMIT_MIN:
            raise ValueError(f"memory_limit_bytes: {memory_limit_bytes} is too little, "
                             f"the engine needs {c.MEMORY_LIMIT_MIN}")
        if not 1 <= threads <= WORKERS_MAX + 1:
            raise ValueError(f"threads: {threads} is not within 1 to {WORKERS_MAX + 1}")
        check_mtu(mtu)
        if entropy_fill(&probe, 1) < 0:
            raise OSError("the kernel gives no random bytes")
        for name in disable:
            features &= ~(<uint32_t>1 << <int>names[name])
        self.core = core_create(memory_limit_bytes, host_probe(features), mtu)
        if self.core == NULL:
            raise MemoryError("the packet buffers could not be reserved")
        self.threads = threads
        self.configuring = threading.Lock()
        self.event_fd = self.core.events.wake
        self.make_device(memory_limit_bytes, mtu)

    def __dealloc__(self):
        if self.core != NULL:
            self.halt()
            core_destroy(self.core)
            self.core = NULL

    cdef int make_device(self, size_t limit, int mtu) except -1:
        cdef size_t used
        memset(&self.core.limits, 0, sizeof(self.core.limits))
        self.core.limits.staged_packet_bytes = max(1500, mtu)
        self.core.udp.buffer_bytes = SOCKET_BUFFER_BYTES
        if limit < c.MEMORY_LIMIT_FULL:
            self.core.limits.max_staged_packets = SMALL_STAGED
            self.core.limits.handshake_queue = SMALL_QUEUE
            self.core.limits.outbox = SMALL_QUEUE
            self.core.limits.ratelimiter_entries = SMALL_RATELIMITER
            self.core.udp.buffer_bytes = SMALL_SOCKET_BUFFER_BYTES
        self.core.device = wg_device_create(&self.core.limits, fill_random, NULL)
        if self.core.device == NULL:
            raise MemoryError("the WireGuard device could not be reserved")
        used = core_memory_bytes(self.core) + wg_memory_bytes(self.core.device)
        if used > limit:
            raise ValueError(f"memory_limit_bytes: {limit} is too little, "
                             f"this configuration needs {used}")
        port_init(self.core)
        return 0

    cdef void halt(self) noexcept:
        """Everything but the memory goes."""
        cdef int result = 0
        if self.started and not self.stopped:
            with nogil:
                gate_pass(&self.core.gate, command_stop, NULL, &result)
                thread_join(&self.core.thread)
                workers_stop(&self.core.workers)
        self.stopped = True
        netport_destroy(netport_detach(self.core))
        wg_device_destroy(self.core.device)
        self.core.device = NULL
        udp_close(&self.core.udp)
        tun_close(&self.core.tun)
        loop_close(&self.core.loop)
        wake_close(&self.core.gate.wake)
        wake_close(&self.core.events.wake)
        self.event_fd = -1

    cdef int execute(self, command run, void *argument) except? -4096:
        cdef int result = 0
        cdef bint served
        with nogil:
            served = gate_pass(&self.core.gate, run, argument, &result)
        if not served:
            raise EngineStopped("the engine is not running")
        return result

    cdef int checked(self, command run, void *argument, object name=None) except -1:
        cdef int result = self.execute(run, argument)
        if result < 0:
            raise os_error(result, name)
        return result

    def start(self):
        cdef int error
        if self.started or self.stopped:
            raise EngineStopped("an engine starts once; make another")
        error = loop_watch(self.core.loop, self.core.gate.wake, TAG_COMMAND, False)
        if error == 0:
            error = workers_start(&self.core.workers, self.threads - 1)
        if error < 0:
            raise os_error(error)
        gate_open(&self.core.gate)
        error = thread_start(&self.core.thread, engine_main, self.core)
        if error < 0:
            workers_stop(&self.core.workers)
            self.stopped = True
            raise os_error(error)
        self.started = True

    def stop(self):
        self.halt()

    # -- outer side --

    def up(self):
        return self.checked(command_up, NULL)

    def down(self):
        self.checked(command_down, NULL)

    def set_listen_port(self, int port):
        cdef uint16_t value
        if not 0 <= port <= 65535:
            raise ValueError(f"port: {port} is not within 0 to 65535")
        value = <uint16_t>port
        return self.checked(command_set_listen_port, &value)

    def set_fwmark(self, mark):
        cdef uint32_t value
        if not 0 <= mark <= 0xffffffff:
            raise ValueError(f"mark: {mark} does not fit into 32 bits")
        value = mark
        self.checked(command_set_fwmark, &value)

    def set_bind_interface(self, name):
        cdef bytes encoded = (name or "").encode()
        self.checked(command_set_interface, PyBytes_AS_STRING(encoded), name)

    def source_changed(self):
        self.checked(command_source_changed, NULL)

    # -- inner side --

    cdef object attach(self, tun *opened, str name, bint adopted):
        info = TunInfo(opened.name.decode(), opened.ifindex, feature_names(opened.features))
        try:
            self.checked(command_attach, opened, name)
        except BaseException:
            if adopted:
                opened.fd = -1  # still its owner's
            tun_close(opened)
            raise
        return info

    def open_tun(self, str name, int mtu, int netns_fd=-1):
        cdef tun opened
        cdef bytes encoded = name.encode()
        cdef const char *text = PyBytes_AS_STRING(encoded)
        cdef int error
        check_mtu(mtu)
        if not 0 < len(encoded) < 16:
            raise ValueError(f"name: {name!r} is no interface name of 1 to 15 bytes")
        tun_init(&opened)
        with nogil:
            error = tun_open(&opened, text, mtu, netns_fd, self.core.features)
        if error < 0:
            raise os_error(error, name)
        return self.attach(&opened, name, False)

    def attach_tun(self, int fd, int mtu):
        cdef tun opened
        cdef int error
        check_mtu(mtu)
        tun_init(&opened)
        error = tun_attach(&opened, fd, mtu, self.core.features)
        if error < 0:
            raise os_error(error, f"descriptor {fd}")
        return self.attach(&opened, f"descriptor {fd}", True)

    def attach_inner(self, int fd, int mtu):
        cdef tun opened
        cdef int error
        check_mtu(mtu)
        tun_init(&opened)
        error = tun_attach_socket(&opened, fd, mtu)
        if error < 0:
            raise os_error(error, f"descriptor {fd}")
        self.attach(&opened, f"descriptor {fd}", True)

    def detach_inner(self):
        self.checked(command_detach, NULL)

    def set_mtu(self, int mtu):
        cdef uint32_t value
        check_mtu(mtu)
        value = <uint32_t>mtu
        self.checked(command_set_mtu, &value)

    def inner_link(self):
        cdef tun_link link
        cdef int result = self.execute(command_look, &link)
        if result == -EOPNOTSUPP or result == -ENODEV:
            return None
        if result < 0:
            raise os_error(result)
        return InnerLink(link.ifindex, link.mtu, bool(link.is_up))

    # -- WireGuard --

    def set_private_key(self, key):
        cdef const uint8_t *value = NULL
        if key is not None:
            value = key_bytes("private_key", key)
        with self.configuring:
            self.checked(command_set_private_key, <void *>value)

    def set_timestamp_floor(self, uint64_t unix_ns):
        self.checked(command_set_timestamp_floor, &unix_ns)

    def set_peer(self, bytes public_key, *, bytes preshared_key=None, endpoint=None,
                 keepalive_s=None, bint replace_allowed_ips=False, allowed_ips=(),
                 removed_allowed_ips=(), bint update_only=False):
        cdef peer_change change
        cdef wg_prefix *added = NULL
        cdef wg_prefix *removed = NULL
        cdef int result = 0
        memset(&change, 0, sizeof(change))
        change.public_key = key_bytes("public_key", public_key)
        if preshared_key is not None:
            change.preshared_key = key_bytes("preshared_key", preshared_key)
            change.mask |= CHANGE_PRESHARED_KEY
        if endpoint is not None:
            fill_endpoint(&change.to, endpoint)
            change.mask |= CHANGE_ENDPOINT
        if keepalive_s is not None:
            if not 0 <= keepalive_s <= 65535:
                raise ValueError(f"keepalive_s: {keepalive_s} is not within 0 to 65535")
            change.keepalive_s = keepalive_s
            change.mask |= CHANGE_KEEPALIVE
        if replace_allowed_ips:
            change.mask |= CHANGE_REPLACE_ALLOWED_IPS
        if update_only:
            change.mask |= CHANGE_UPDATE_ONLY
        try:
            added = make_prefixes("allowed_ips", allowed_ips)
            removed = make_prefixes("removed_allowed_ips", removed_allowed_ips)
            change.added = added
            change.added_count = len(allowed_ips)
            change.removed = removed
            change.removed_count = len(removed_allowed_ips)
            with self.configuring:
                result = self.execute(command_set_peer, &change)
        finally:
            free(added)
            free(removed)
        if result == WG_ERROR_NO_MEMORY:
            raise MemoryError("no memory for another peer or range")
        if result == WG_ERROR_LIMIT:
            raise ValueError("public_key or allowed_ips: the device has as many as it can hold")
        if result == WG_ERROR_OWN_KEY:
            return False
        return bool(change.found)

    def remove_peer(self, bytes public_key):
        cdef const uint8_t *key = key_bytes("public_key", public_key)
        with self.configuring:
            return bool(self.execute(command_remove_peer, <void *>key))

    def remove_all_peers(self):
        with self.configuring:
            self.checked(command_remove_all_peers, NULL)

    def initiate_handshake(self, bytes public_key):
        self.execute(command_initiate, <void *>key_bytes("public_key", public_key))

    def expire_session(self, bytes public_key):
        self.execute(command_expire_session, <void *>key_bytes("public_key", public_key))

    # -- observing --

    def status(self):
        cdef snapshot *part = <snapshot *>malloc(sizeof(snapshot))
        if part == NULL:
            raise MemoryError
        try:
            memset(part, 0, sizeof(snapshot))
            # Between two parts of it nobody may change the list of peers.
            with self.configuring:
                return self.collect(part)
        finally:
            secret_erase(part, sizeof(snapshot))
            free(part)

    cdef object collect(self, snapshot *part):
        cdef uint32_t i
        peers = []
        prefixes = []
        while not part.complete:
            self.checked(command_snapshot, part)
            first = len(peers) if part.first_is_new else len(peers) - 1
            for i in range(part.peer_count):
                if i > 0 or part.first_is_new:
                    peers.append(read_peer(&part.peers[i]))
                    prefixes.append([])
            for i in range(part.prefix_count):
                prefixes[first + part.owner[i]].append(read_prefix(&part.prefixes[i]))
        return DeviceStatus(
            (<const char *>part.private_key)[:WG_KEY_LEN] if part.has_key else None,
            (<const char *>part.public_key)[:WG_KEY_LEN] if part.has_key else None,
            part.listen_port,
            part.fwmark,
            tuple([peer._replace(allowed_ips=tuple([text for *_, text in sorted(ranges)]))
                   for peer, ranges in zip(peers, prefixes, strict=True)]),
        )

    cdef drop_counters *read_counters(self, counters *into) except NULL:
        """Return the drop counters, to be freed."""
        memset(into, 0, sizeof(counters))
        into.drops = <drop_counters *>malloc(DROP_REASON_COUNT * sizeof(uint64_t))
        if into.drops == NULL:
            raise MemoryError
        try:
            self.checked(command_counters, into)
        except BaseException:
            free(into.drops)
            raise
        return into.drops

    def drops(self):
        cdef counters now
        cdef drop_counters *drops = self.read_counters(&now)
        cdef int i
        try:
            return {drop_reason_name(<drop_reason>i).decode(): drops.count[i]
                    for i in range(DROP_REASON_COUNT) if drops.count[i]}
        finally:
            free(drops)

    def statistics(self):
        cdef counters now
        free(self.read_counters(&now))
        return {
            "turns": now.engine.turns,
            "commands": now.engine.commands,
            "inner_reads": now.tun.reads,
            "inner_writes": now.tun.writes,
            "tx_packets": now.engine.tx_packets,
            "tx_bytes": now.engine.tx_bytes,
            "rx_packets": now.engine.rx_packets,
            "rx_bytes": now.engine.rx_bytes,
            "seal_batches": now.engine.seal_batches,
            "open_batches": now.engine.open_batches,
            "udp_receive_calls": now.udp.receive_calls,
            "udp_receive_buffers": now.udp.receive_buffers,
            "udp_send_calls": now.udp.send_calls,
            "udp_send_waits": now.udp.send_waits,
            "icmp_errors": now.engine.icmp_errors,
            "events_lost": now.events_lost,
            "memory_bytes": now.memory_bytes,
        }

    def features(self):
        cdef counters now
        cdef uint32_t inner = HOST_VNET_HDR | HOST_TSO | HOST_USO | HOST_GSO_MAX
        cdef uint32_t used
        cdef unsigned int i
        free(self.read_counters(&now))
        used = now.udp_features & ~inner
        used |= inner & (now.tun_features if now.tun_is_open else self.core.features)
        return {host_feature_name(i).decode(): bool(used & 1u << i)
                for i in range(HOST_FEATURE_COUNT)}

    def events(self):
        cdef engine_event event
        found = []
        if self.stopped:
            return found
        wake_clear(self.core.events.wake)
        while event_take(&self.core.events, &event):
            key = (<const char *>event.public_key)[:WG_KEY_LEN]
            found.append(Event(event.kind, key if any(key) else b"", event.value))
        return found


cdef int check_mtu(int mtu) except -1:
    if not ENGINE_MTU_MIN <= mtu <= ENGINE_MTU_MAX:
        raise ValueError(f"mtu: {mtu} is not within {ENGINE_MTU_MIN} to {ENGINE_MTU_MAX}")
    return 0


cdef object read_peer(const wg_peer_status *p):
    return PeerStatus(
        public_key=(<const char *>p.public_key)[:WG_KEY_LEN],
        preshared_key=(<const char *>p.preshared_key)[:WG_KEY_LEN],
        endpoint=read_endpoint(&p.endpoint),
        allowed_ips=(),
        keepalive_s=p.keepalive_s,
        last_handshake_unix_ns=p.last_handshake_unix_ns,
        rx_bytes=p.rx_bytes,
        tx_bytes=p.tx_bytes,
        handshake_attempts=p.handshake_attempts,
        handshake_duration_ns=p.handshake_duration_ns,
    )
