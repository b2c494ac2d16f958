# SPDX-License-Identifier: Apache-2.0
"""The inner port of the host: TUN with its offloads, or a message socket in its place."""

from libc.errno cimport EAGAIN, EBADF, EMSGSIZE, ENODEV, EPIPE
from libc.stdint cimport uint64_t

from cext.engine.core cimport (
    DROP_ENGINE_TOO_BIG,
    DROP_HOST_TUN_WRITE_FAILED,
    EVENT_INNER_CLOSED,
    OUT_TURN_FLUSHES,
    OUT_TURN_READS,
    engine_core,
    event_put,
)
from cext.engine.gro cimport gro_batch, gro_coalesce, gro_vectors
from cext.engine.outbound cimport outbound_packet
from cext.host.features cimport HOST_TSO, HOST_USO
from cext.host.loop cimport loop_forget
from cext.host.tun cimport tun_read, tun_write
from cext.wire.vnet cimport vnet_header
from cext.wireguard.device cimport wg_drops


cdef extern from *:
    """
    #include <errno.h>
    #ifndef EBADFD
    #define EBADFD EBADF
    #endif
    """
    int EBADFD


cdef void closed(engine_core *core, int error) noexcept nogil:
    """Stop looking at a device that is gone; a command has to bring another."""
    loop_forget(core.loop, core.tun.fd)
    core.port = NULL
    event_put(&core.events, EVENT_INNER_CLOSED, NULL, <uint64_t>error)


cdef bint is_gone(int error) noexcept nogil:
    return error == EBADFD or error == EBADF or error == ENODEV or error == EPIPE


cdef void deliver(void *context, uint64_t now_ns, gro_batch *batch) noexcept nogil:
    cdef engine_core *core = <engine_core *>context
    cdef vnet_header header
    cdef unsigned int i, n
    cdef int error
    gro_coalesce(batch, core.tun.features & HOST_TSO != 0, core.tun.features & HOST_USO != 0)
    for i in range(batch.group_count):
        n = gro_vectors(batch, i, &header, core.inbound.vectors)
        error = tun_write(&core.tun, &header, core.inbound.vectors, n)
        if error:
            wg_drops(core.device).count[<int>DROP_HOST_TUN_WRITE_FAILED] += (
                batch.groups[i].count)
            if is_gone(-error):
                closed(core, -error)
                return


cdef bint pull(void *context, uint64_t now_ns) noexcept nogil:
    cdef engine_core *core = <engine_core *>context
    cdef vnet_header header
    cdef int _, n
    for _ in range(OUT_TURN_READS):
        n = tun_read(&core.tun, core.out.packet, core.out.packet_capacity, &header)
        if n == -EAGAIN:
            return False
        if n == -EMSGSIZE:
            wg_drops(core.device).count[<int>DROP_ENGINE_TOO_BIG] += 1
        elif n < 0:
            closed(core, -n)
            return False
        elif n > 0:
            outbound_packet(core, now_ns, core.out.packet, <unsigned int>n, &header)
        if core.out.flushes >= OUT_TURN_FLUSHES or core.port == NULL:
            return True
    return True


cdef void port_init(engine_core *core) noexcept nogil:
    core.host_port.context = core
    core.host_port.deliver = deliver
    core.host_port.pull = pull
    core.host_port.poll_at = NULL
