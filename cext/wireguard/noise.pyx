# SPDX-License-Identifier: Apache-2.0
"""The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, both roles; the theory is in noise.h.

Section 5.4.2 and 5.4.3 of the WireGuard paper, in its order. Names follow Noise:
mix_hash, mix_key, encrypt_and_hash. Every AEAD key of a handshake seals exactly one
message, so its nonce is always 0.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from cext.base.endian cimport load_le32, store_le32
from cext.base.secret cimport secret_equal, secret_erase
from cext.crypto.crypto cimport (
    aead_open,
    aead_seal,
    blake2s,
    blake2s_final,
    blake2s_init,
    blake2s_state,
    blake2s_update,
    kdf,
    x25519,
    x25519_public,
)
from cext.wire.messages cimport (
    WG_MESSAGE_INITIATION,
    WG_MESSAGE_RESPONSE,
    WG_TIMESTAMP_LEN,
    wg_message_initiation,
    wg_message_response,
)
from cext.wireguard.state cimport (
    NOISE_EPHEMERALS,
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


cdef void mix_hash(noise_state *state, const uint8_t *data, size_t length) noexcept nogil:
    cdef blake2s_state hash

    blake2s_init(&hash, 32, NULL, 0)
    blake2s_update(&hash, state.hash, 32)
    blake2s_update(&hash, data, length)
    blake2s_final(&hash, state.hash)


cdef void mix_key(noise_state *state, uint8_t *key, const uint8_t *data,
                  size_t length) noexcept nogil:
    """New chaining key, and an AEAD key unless `key` is NULL."""
    cdef uint8_t out[64]

    kdf(out, 1 if key == NULL else 2, state.chaining_key, data, length)
    memcpy(state.chaining_key, out, 32)
    if key != NULL:
        memcpy(key, out + 32, 32)
    secret_erase(out, sizeof(out))


cdef bint mix_dh(noise_state *state, uint8_t *key, const uint8_t *secret,
                 const uint8_t *point) noexcept nogil:
    """False when the shared secret is zero, as a low-order point makes it."""
    cdef uint8_t shared[32]

    if not x25519(shared, secret, point):
        return False
    mix_key(state, key, shared, 32)
    secret_erase(shared, sizeof(shared))
    return True


cdef bint mix_static_static(noise_state *state, uint8_t *key,
                            const noise_remote *remote) noexcept nogil:
    cdef uint8_t zero[32]

    memset(zero, 0, sizeof(zero))
    if secret_equal(remote.static_static, zero, 32):
        return False
    mix_key(state, key, remote.static_static, 32)
    return True


cdef void mix_psk(noise_state *state, uint8_t *key, const uint8_t *psk) noexcept nogil:
    cdef uint8_t out[96]

    kdf(out, 3, state.chaining_key, psk, 32)
    memcpy(state.chaining_key, out, 32)
    mix_hash(state, out + 32, 32)
    memcpy(key, out + 64, 32)
    secret_erase(out, sizeof(out))


cdef void encrypt_and_hash(noise_state *state, const uint8_t *key, uint8_t *out,
                           const uint8_t *data, size_t length) noexcept nogil:
    cdef uint8_t nonce[12]

    memset(nonce, 0, sizeof(nonce))
    aead_seal(out, data, length, state.hash, 32, nonce, key)
    mix_hash(state, out, length + 16)


cdef bint decrypt_and_hash(noise_state *state, const uint8_t *key, uint8_t *out,
                           const uint8_t *data, size_t length) noexcept nogil:
    cdef uint8_t nonce[12]

    memset(nonce, 0, sizeof(nonce))
    if not aead_open(out, data, length, state.hash, 32, nonce, key):
        return False
    mix_hash(state, data, length)
    return True


cdef void derive(const noise_state *state, noise_keys *keys, bint initiator) noexcept nogil:
    cdef uint8_t out[64]
    cdef int first = 0 if initiator else 32

    # Both sides derive the same two keys; the initiator sends with the first.
    kdf(out, 2, state.chaining_key, state.hash, 0)
    memcpy(keys.send, out + first, 32)
    memcpy(keys.receive, out + 32 - first, 32)
    secret_erase(out, sizeof(out))


cdef void noise_begin(noise_state *state) noexcept nogil:
    cdef const char *construction = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
    cdef const char *identifier = b"WireGuard v1 zx2c4 Jason@zx2c4.com"

    blake2s(state.chaining_key, 32, <const uint8_t *>construction, 37, NULL, 0)
    memcpy(state.hash, state.chaining_key, 32)
    mix_hash(state, <const uint8_t *>identifier, 34)


cdef bint noise_set_identity(noise_identity *identity, const uint8_t *key) noexcept nogil:
    cdef uint8_t any_bit = 0
    cdef int i

    secret_erase(identity, sizeof(identity[0]))
    if key != NULL:
        for i in range(32):
            any_bit |= key[i]
    if any_bit == 0:
        return False
    memcpy(identity.private_key, key, 32)
    identity.private_key[0] &= 248
    identity.private_key[31] = (identity.private_key[31] & 127) | 64
    x25519_public(identity.public_key, identity.private_key)
    identity.known = True
    return True


cdef void noise_set_remote(noise_remote *remote, const noise_identity *identity) noexcept nogil:
    if not identity.known or not x25519(remote.static_static, identity.private_key,
                                        remote.public_key):
        memset(remote.static_static, 0, 32)


# -- ephemeral key pairs --

cdef void make_ephemeral(noise_ephemeral *pair, wg_random_fn random,
                         void *random_ctx) noexcept nogil:
    pair.remote = NULL
    random(random_ctx, pair.private_key, sizeof(pair.private_key))
    x25519_public(pair.public_key, pair.private_key)


cdef void noise_make_ahead(noise_ephemerals *ahead, wg_random_fn random,
                           void *random_ctx) noexcept nogil:
    if ahead.count < NOISE_EPHEMERALS:
        make_ephemeral(&ahead.pairs[ahead.count], random, random_ctx)
        ahead.count += 1


cdef bint noise_is_meant(const noise_ephemerals *ahead,
                         const noise_remote *remote) noexcept nogil:
    cdef uint32_t i

    for i in range(ahead.count):
        if ahead.pairs[i].remote == remote:
            return True
    return False


cdef bint noise_mean(noise_ephemerals *ahead, const noise_remote *remote) noexcept nogil:
    cdef noise_ephemeral *pair
    cdef uint32_t i

    for i in range(ahead.count):
        pair = &ahead.pairs[i]
        if pair.remote == NULL and x25519(pair.shared, pair.private_key, remote.public_key):
            pair.remote = remote
            return True
    return False


cdef void take_out(noise_ephemerals *ahead, uint32_t at) noexcept nogil:
    ahead.count -= 1
    ahead.pairs[at] = ahead.pairs[ahead.count]
    secret_erase(&ahead.pairs[ahead.count], sizeof(noise_ephemeral))


cdef void noise_unmean(noise_ephemerals *ahead, const noise_remote *remote) noexcept nogil:
    cdef uint32_t i

    for i in range(ahead.count):
        if ahead.pairs[i].remote == remote:
            take_out(ahead, i)
            return


cdef void noise_take_ephemeral(noise_ephemerals *ahead, const noise_remote *remote,
                               noise_ephemeral *pair, wg_random_fn random,
                               void *random_ctx) noexcept nogil:
    cdef uint32_t i, best = 0

    if ahead.count == 0:
        make_ephemeral(pair, random, random_ctx)
        return
    for i in range(ahead.count):
        if ahead.pairs[i].remote == remote:
            best = i
            break
        # One that is meant for somebody else only when there is no other.
        if ahead.pairs[i].remote == NULL:
            best = i
    pair[0] = ahead.pairs[best]
    take_out(ahead, best)


# -- messages --

cdef bint noise_create_initiation(wg_handshake *handshake, wg_message_initiation *message,
                                  const noise_state *initial, const noise_identity *identity,
                                  const noise_remote *remote, const uint8_t *timestamp,
                                  uint32_t sender,
                                  const noise_ephemeral *ephemeral) noexcept nogil:
    cdef noise_state state = initial[0]
    cdef uint8_t key[32]
    cdef bint done = False

    store_le32(message.type, WG_MESSAGE_INITIATION)
    store_le32(message.sender, sender)
    mix_hash(&state, remote.public_key, 32)

    memcpy(message.ephemeral, ephemeral.public_key, 32)
    mix_key(&state, NULL, message.ephemeral, 32)
    mix_hash(&state, message.ephemeral, 32)
    if ephemeral.remote == remote:
        mix_key(&state, key, ephemeral.shared, 32)
        done = True
    else:
        done = mix_dh(&state, key, ephemeral.private_key, remote.public_key)
    if done:
        done = False
        encrypt_and_hash(&state, key, message.static_key, identity.public_key, 32)
        if mix_static_static(&state, key, remote):
            encrypt_and_hash(&state, key, message.timestamp, timestamp, WG_TIMESTAMP_LEN)
            handshake.state = state
            memcpy(handshake.ephemeral, ephemeral.private_key, 32)
            done = True
    secret_erase(&state, sizeof(state))
    secret_erase(key, sizeof(key))
    return done


cdef bint noise_open_static(noise_opened *opened, const wg_message_initiation *message,
                            const noise_state *initial,
                            const noise_identity *identity) noexcept nogil:
    cdef uint8_t key[32]
    cdef bint done = False

    opened.state = initial[0]
    opened.sender = load_le32(message.sender)
    memcpy(opened.ephemeral, message.ephemeral, 32)
    mix_hash(&opened.state, identity.public_key, 32)
    mix_key(&opened.state, NULL, message.ephemeral, 32)
    mix_hash(&opened.state, message.ephemeral, 32)
    if mix_dh(&opened.state, key, identity.private_key, message.ephemeral):
        done = decrypt_and_hash(&opened.state, key, opened.public_key, message.static_key,
                                sizeof(message.static_key))
    secret_erase(key, sizeof(key))
    return done


cdef bint noise_open_timestamp(noise_opened *opened, const wg_message_initiation *message,
                               const noise_remote *remote) noexcept nogil:
    cdef uint8_t key[32]
    cdef bint done = False

    if mix_static_static(&opened.state, key, remote):
        done = decrypt_and_hash(&opened.state, key, opened.timestamp, message.timestamp,
                                sizeof(message.timestamp))
    secret_erase(key, sizeof(key))
    return done


cdef bint noise_create_response(const noise_opened *opened, wg_message_response *message,
                                const noise_remote *remote, noise_keys *keys,
                                const noise_ephemeral *ephemeral) noexcept nogil:
    cdef noise_state state = opened.state
    cdef uint8_t key[32]
    cdef bint done = False

    store_le32(message.type, WG_MESSAGE_RESPONSE)
    store_le32(message.receiver, opened.sender)

    memcpy(message.ephemeral, ephemeral.public_key, 32)
    mix_key(&state, NULL, message.ephemeral, 32)
    mix_hash(&state, message.ephemeral, 32)
    if (mix_dh(&state, NULL, ephemeral.private_key, opened.ephemeral)
            and mix_dh(&state, NULL, ephemeral.private_key, remote.public_key)):
        mix_psk(&state, key, remote.preshared_key)
        encrypt_and_hash(&state, key, message.nothing, state.hash, 0)
        derive(&state, keys, False)
        done = True
    secret_erase(&state, sizeof(state))
    secret_erase(key, sizeof(key))
    return done


cdef bint noise_consume_response(const wg_handshake *handshake,
                                 const wg_message_response *message,
                                 const noise_identity *identity, const noise_remote *remote,
                                 noise_keys *keys) noexcept nogil:
    cdef noise_state state = handshake.state
    cdef uint8_t key[32]
    cdef uint8_t nothing[1]
    cdef bint done = False

    mix_key(&state, NULL, message.ephemeral, 32)
    mix_hash(&state, message.ephemeral, 32)
    if (mix_dh(&state, NULL, handshake.ephemeral, message.ephemeral)
            and mix_dh(&state, NULL, identity.private_key, message.ephemeral)):
        mix_psk(&state, key, remote.preshared_key)
        if decrypt_and_hash(&state, key, nothing, message.nothing, sizeof(message.nothing)):
            derive(&state, keys, True)
            done = True
    secret_erase(&state, sizeof(state))
    secret_erase(key, sizeof(key))
    return done
