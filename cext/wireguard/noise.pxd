# SPDX-License-Identifier: Apache-2.0
# The steps of a handshake. Each is all or nothing: False leaves the state as it was.
from libc.stdint cimport uint8_t, uint32_t

from cext.wire.messages cimport wg_message_initiation, wg_message_response
from cext.wireguard.state cimport (
    noise_ephemeral,
    noise_ephemerals,
    noise_identity,
    noise_keys,
    noise_opened,
    noise_remote,
    noise_state,
    wg_handshake,
    wg_random_fn,
)


# Mix in what every handshake begins with.
cdef void noise_begin(noise_state *state) noexcept nogil
# False for zeros, which is no private key. Clamps.
cdef bint noise_set_identity(noise_identity *identity, const uint8_t *key) noexcept nogil
# The peer's part that depends on both static keys; to be called when either changes.
cdef void noise_set_remote(noise_remote *remote, const noise_identity *identity) noexcept nogil

# Make one key pair ahead, if there is room for it.
cdef void noise_make_ahead(noise_ephemerals *ahead, wg_random_fn random,
                           void *random_ctx) noexcept nogil
# Mean one of them for initiations to this peer; False when none is free.
cdef bint noise_mean(noise_ephemerals *ahead, const noise_remote *remote) noexcept nogil
cdef bint noise_is_meant(const noise_ephemerals *ahead,
                         const noise_remote *remote) noexcept nogil
# The peer goes, and what was meant for it.
cdef void noise_unmean(noise_ephemerals *ahead, const noise_remote *remote) noexcept nogil
# One that is meant for an initiation to `remote`, or for nobody (as a responder wants
# it: NULL), or a new one; the caller erases it.
cdef void noise_take_ephemeral(noise_ephemerals *ahead, const noise_remote *remote,
                               noise_ephemeral *pair, wg_random_fn random,
                               void *random_ctx) noexcept nogil

# Initiator. False for a low-order public key: then nothing may be sent. Fills all
# but the MACs; `timestamp` has 12 bytes.
cdef bint noise_create_initiation(wg_handshake *handshake, wg_message_initiation *message,
                                  const noise_state *initial, const noise_identity *identity,
                                  const noise_remote *remote, const uint8_t *timestamp,
                                  uint32_t sender,
                                  const noise_ephemeral *ephemeral) noexcept nogil
cdef bint noise_consume_response(const wg_handshake *handshake,
                                 const wg_message_response *message,
                                 const noise_identity *identity, const noise_remote *remote,
                                 noise_keys *keys) noexcept nogil

# Responder: open the static key, look the peer up, open the timestamp, answer. The
# answer's sender index and MACs are left to the caller.
cdef bint noise_open_static(noise_opened *opened, const wg_message_initiation *message,
                            const noise_state *initial,
                            const noise_identity *identity) noexcept nogil
cdef bint noise_open_timestamp(noise_opened *opened, const wg_message_initiation *message,
                               const noise_remote *remote) noexcept nogil
cdef bint noise_create_response(const noise_opened *opened, wg_message_response *message,
                                const noise_remote *remote, noise_keys *keys,
                                const noise_ephemeral *ephemeral) noexcept nogil
