# SPDX-License-Identifier: Apache-2.0
# The inner port that a TUN device or a message socket is.
from cext.engine.core cimport engine_core


# Fill core.host_port; core.tun may be open or closed at that time.
cdef void port_init(engine_core *core) noexcept nogil
