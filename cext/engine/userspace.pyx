# SPDX-License-Identifier: Apache-2.0
# cython: warn.undeclared=False
"""The netstack's Python face: arguments to structs and through the engine's gate."""

import os
from ipaddress import ip_address

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING

from cext.engine.core cimport core_memory_bytes, engine_core
from cext.engine.engine cimport Engine, fill_endpoint
from cext.engine.netport cimport (
    netport_attach,
    netport_create,
    netport_destroy,
    netport_memory_bytes,
    netport_set_addresses,
    netport_set_mtu,
)
from cext.engine.relay cimport (
    relay_close,
    relay_dial,
    relay_dialled,
    relay_forward_tcp,
    relay_splice,
)
from cext.engine.relay_table cimport (
    RELAY_EARLY_BYTES, body_init, names_forget, names_next_asked, relay, relay_body,
)
from cext.engine.relay_udp cimport (
    relay_associate, relay_forward_udp, relay_learn_name, relay_open_udp,
)
from cext.host.clock cimport clock_now_ns
from cext.netstack.layout cimport NS_ADDRESSES_MAX, address_from_v4, ns_statistics
from cext.wire.endpoint cimport WT_AF_INET, WT_AF_INET6, endpoint
from cext.wire.special cimport address_is_host
from cext.wireguard.device cimport wg_memory_bytes

cdef enum:
    RESULTS_MAX = 128


cdef struct wish:
    uint32_t id
    int fd
    uint16_t port
    endpoint to
    endpoint local
    bint is_socks
    uint8_t *early
    uint32_t early_len
    relay_body body
    bint one_request
    uint32_t head_len
    uint8_t addresses[16 * 16]
    uint32_t address_count
    uint8_t name[256]
    uint64_t until_ns
    uint32_t results
    uint32_t ids[RESULTS_MAX]
    int errors[RESULTS_MAX]


cdef struct numbers:
    uint32_t flows
    uint64_t bytes_in
    uint64_t bytes_out
    size_t memory
    ns_statistics stack


# -- on the native thread --

cdef int command_attach(void *core, void *made) noexcept nogil:
    return netport_attach(<engine_core *>core, <relay *>made)


cdef int command_addresses(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return netport_set_addresses(<engine_core *>core, w.addresses, w.address_count)


cdef int command_mtu(void *core, void *argument) noexcept nogil:
    return netport_set_mtu(<engine_core *>core, (<wish *>argument).id)


cdef int command_dial(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_dial(<relay *>(<engine_core *>core).relay, &w.to, &w.id)


cdef int command_dialled(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    w.results = 0
    while w.results < RESULTS_MAX and relay_dialled(<relay *>(<engine_core *>core).relay,
                                                    &w.ids[w.results], &w.errors[w.results]):
        w.results += 1
    return 0


cdef int command_splice(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_splice(<relay *>(<engine_core *>core).relay, w.id, w.fd, w.early, w.early_len,
                        &w.body if w.one_request else NULL, w.head_len)


cdef int command_forward_tcp(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_forward_tcp(<relay *>(<engine_core *>core).relay, w.port, &w.to, &w.id)


cdef int command_forward_udp(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_forward_udp(<relay *>(<engine_core *>core).relay, w.port, &w.to, &w.id)


cdef int command_associate(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_associate(<relay *>(<engine_core *>core).relay, &w.local,
                           NULL if w.is_socks else &w.to, &w.to, &w.id)


cdef int command_open_udp(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    return relay_open_udp(<relay *>(<engine_core *>core).relay, &w.to, w.fd, &w.id)


cdef int command_asked_name(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    cdef const uint8_t *name = names_next_asked(&(<relay *>(<engine_core *>core).relay).names)
    if name != NULL:
        memcpy(w.name, name, <size_t>name[0] + 1)
    return name != NULL


cdef int command_learn_name(void *core, void *argument) noexcept nogil:
    cdef wish *w = <wish *>argument
    relay_learn_name(<relay *>(<engine_core *>core).relay, w.name + 1, w.name[0],
                     &w.to if w.to.family else NULL, clock_now_ns() + w.until_ns)
    return 0


cdef int command_forget_names(void *core, void *argument) noexcept nogil:
    names_forget(&(<relay *>(<engine_core *>core).relay).names)
    return 0


cdef int command_close(void *core, void *argument) noexcept nogil:
    relay_close(<relay *>(<engine_core *>core).relay, (<wish *>argument).id)
    return 0


cdef int command_numbers(void *core, void *argument) noexcept nogil:
    cdef numbers *n = <numbers *>argument
    cdef relay *r = <relay *>(<engine_core *>core).relay
    n.flows = r.used
    n.bytes_in = r.bytes_in
    n.bytes_out = r.bytes_out
    n.memory = netport_memory_bytes(r)
    n.stack = r.stack.statistics
    return 0


# -- Python --

cdef int fill_addresses(wish *w, object addresses) except -1:
    cdef bytes packed
    if len(addresses) > NS_ADDRESSES_MAX:
        raise ValueError(f"addresses: {len(addresses)} of them, "
                         f"at most {NS_ADDRESSES_MAX} are possible")
    w.address_count = 0
    for text in addresses:
        packed = ip_address(text).packed
        if len(packed) == 4:
            address_from_v4(w.addresses + 16 * w.address_count,
                            <const uint8_t *>PyBytes_AS_STRING(packed))
        else:
            memcpy(w.addresses + 16 * w.address_count, PyBytes_AS_STRING(packed), 16)
        w.address_count += 1
    return 0


cdef int check_port(object port) except -1:
    if not 0 < port < 65536:
        raise ValueError(f"port: {port} is not within 1 to 65535")
    return 0


def is_host(address):
    cdef bytes packed = ip_address(address).packed
    return address_is_host(WT_AF_INET if len(packed) == 4 else WT_AF_INET6,
                           <const uint8_t *>PyBytes_AS_STRING(packed))


cdef class Userspace:
    cdef Engine engine

    def __cinit__(self, Engine engine, addresses):
        cdef wish w
        cdef engine_core *core = engine.core
        cdef size_t used, limit
        cdef relay *made
        cdef int result
        fill_addresses(&w, addresses)
        if core.relay != NULL:
            raise ValueError("engine: it has a netstack already")
        used = core_memory_bytes(core) + wg_memory_bytes(core.device)
        limit = core.memory_limit
        made = netport_create(core, limit - used if limit > used else 0, core.tun.mtu)
        if made == NULL:
            raise ValueError(f"memory_limit_bytes: {limit} is too little, "
                             f"with the netstack {used + 3 * 1024 * 1024} are needed")
        try:
            result = engine.execute(command_attach, made)
        except BaseException:
            netport_destroy(made)
            raise
        if result < 0:
            netport_destroy(made)
            raise OSError(-result, os.strerror(-result))
        self.engine = engine
        engine.checked(command_addresses, &w)

    def set_addresses(self, addresses):
        cdef wish w
        fill_addresses(&w, addresses)
        self.engine.checked(command_addresses, &w)

    def set_mtu(self, uint32_t mtu):
        cdef wish w
        w.id = mtu
        self.engine.checked(command_mtu, &w, f"mtu {mtu}")

    def dial_tcp(self, host, port):
        cdef wish w
        fill_endpoint(&w.to, (host, port, 0))
        self.engine.checked(command_dial, &w, f"{host}:{port}")
        return w.id

    def dialled(self):
        cdef wish w
        cdef uint32_t i
        found = []
        while True:
            self.engine.checked(command_dialled, &w)
            for i in range(w.results):
                found.append((w.ids[i], w.errors[i]))
            if w.results < RESULTS_MAX:
                return found

    def splice(self, uint32_t flow, int fd, bytes early=b"", request=None):
        cdef wish w
        w.id = flow
        w.fd = fd
        w.early = NULL
        w.early_len = len(early)
        try:
            if w.early_len > RELAY_EARLY_BYTES:
                raise ValueError(f"early: {w.early_len} bytes, at most {RELAY_EARLY_BYTES}")
            w.one_request = request is not None
            if w.one_request:
                w.head_len, length = request
                if w.head_len > w.early_len:
                    raise ValueError(f"request: a head of {w.head_len} in {w.early_len} bytes")
                body_init(&w.body, length is None, length or 0)
            if w.early_len:
                w.early = <uint8_t *>malloc(w.early_len)
                if w.early == NULL:
                    raise MemoryError
                memcpy(w.early, PyBytes_AS_STRING(early), w.early_len)
            self.engine.checked(command_splice, &w)
        except BaseException:
            free(w.early)
            os.close(fd)
            raise

    def forward_tcp(self, port, target):
        cdef wish w
        check_port(port)
        fill_endpoint(&w.to, target)
        w.port = port
        self.engine.checked(command_forward_tcp, &w, f"port {port}")
        return w.id

    def forward_udp(self, port, target):
        cdef wish w
        check_port(port)
        fill_endpoint(&w.to, target)
        w.port = port
        self.engine.checked(command_forward_udp, &w, f"port {port}")
        return w.id

    cdef object bind(self, wish *w, local):
        fill_endpoint(&w.local, (local[0], local[1] or 1, 0))
        w.local.port = local[1]
        port = self.engine.checked(command_associate, w, f"{local[0]}:{local[1]}")
        return w.id, port

    def associate(self, local, target):
        cdef wish w
        fill_endpoint(&w.to, target)
        w.is_socks = False
        return self.bind(&w, local)

    def associate_socks(self, local, client):
        cdef wish w
        fill_endpoint(&w.to, (client[0], client[1] or 1, 0))
        w.to.port = client[1]
        w.is_socks = True
        return self.bind(&w, local)

    def open_udp(self, target, int fd):
        cdef wish w
        try:
            fill_endpoint(&w.to, target)
            w.fd = fd
            self.engine.checked(command_open_udp, &w, f"{target[0]}:{target[1]}")
        except BaseException:
            os.close(fd)
            raise
        return w.id

    def asked_names(self):
        cdef wish w
        found = []
        while self.engine.checked(command_asked_name, &w):
            found.append((<char *>w.name)[1:1 + w.name[0]])
        return found

    def learn_name(self, bytes name, address, ttl_s):
        cdef wish w
        if not 0 < len(name) < 256:
            raise ValueError(f"name: {len(name)} bytes, 1 to 255 are possible")
        memset(&w.to, 0, sizeof(w.to))
        if address is not None:
            fill_endpoint(&w.to, (address, 1, 0))
        w.name[0] = <uint8_t>len(name)
        memcpy(w.name + 1, PyBytes_AS_STRING(name), w.name[0])
        w.until_ns = <uint64_t>max(1, ttl_s) * 1000000000
        self.engine.checked(command_learn_name, &w)

    def forget_names(self):
        self.engine.checked(command_forget_names, NULL)

    def close(self, uint32_t flow):
        cdef wish w
        w.id = flow
        self.engine.checked(command_close, &w)

    def statistics(self):
        cdef numbers n
        self.engine.checked(command_numbers, &n)
        return {
            "flows": n.flows,
            "bytes_in": n.bytes_in,
            "bytes_out": n.bytes_out,
            "memory_bytes": n.memory,
            "packets_in": n.stack.packets_in,
            "packets_out": n.stack.packets_out,
            "retransmits": n.stack.retransmits,
            "timeouts": n.stack.timeouts,
            "opened": n.stack.opened,
            "closed": n.stack.closed,
            "evicted": n.stack.evicted,
            "icmp_in": n.stack.icmp_in,
            "icmp_out": n.stack.icmp_out,
        }
