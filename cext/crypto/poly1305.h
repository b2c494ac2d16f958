/* SPDX-License-Identifier: Apache-2.0 */
/* Poly1305 of one message with the CPU's own multiplier. */
#ifndef WT_CRYPTO_POLY1305_H
#define WT_CRYPTO_POLY1305_H

#include <stddef.h>
#include <stdint.h>

#define POLY1305_BLOCK 16
#define POLY1305_KEY_LEN 32

#ifdef __SIZEOF_INT128__
typedef uint64_t poly_word;
typedef unsigned __int128 poly_double;
#define POLY_WORDS 2
#else
typedef uint32_t poly_word;
typedef uint64_t poly_double;
#define POLY_WORDS 4
#endif

/**
 * struct poly1305 - Accumulator and key in limbs of a machine word
 * @h:		h mod 2^130 - 5, not fully reduced; the last limb stays below 8
 * @r:		The clamped half of the key
 * @s:		@r[i] * 5 / 4, exact since clamping cleared two bits; @s[0] unused
 * @pad:	The other half of the key, added at the end
 *
 * Full words, and not the usual 26 or 44 bits: with r clamped to 4 free bits in
 * each word, a column of products fits a double word, and a 32-bit CPU spends
 * 16 multiplications on a block where limbs of 26 bits need 25.
 */
struct poly1305 {
	poly_word h[POLY_WORDS + 1];
	poly_word r[POLY_WORDS];
	poly_word s[POLY_WORDS];
	uint8_t pad[16];
};

void poly1305_init(struct poly1305 *p, const uint8_t key[POLY1305_KEY_LEN]);
/* @top is 1 for a whole block, 0 for a last one that carries its own end mark. */
void poly1305_blocks(struct poly1305 *p, const uint8_t *in, size_t blocks, poly_word top);
void poly1305_final(struct poly1305 *p, uint8_t tag[16]);

/* The same numbers in five limbs of 26 bits, as vectors without wide products have them. */
void poly1305_r26(uint64_t limb[5], const struct poly1305 *p);
void poly1305_h26(uint64_t limb[5], const struct poly1305 *p);
/* Limbs of up to 2^32; the accumulator becomes their sum mod 2^130 - 5. */
void poly1305_set_h26(struct poly1305 *p, const uint64_t limb[5]);

#endif /* WT_CRYPTO_POLY1305_H */
