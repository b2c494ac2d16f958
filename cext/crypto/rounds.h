/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20's rounds over vectors; the including variant names its instructions. */
#ifndef WT_CRYPTO_ROUNDS_H
#define WT_CRYPTO_ROUNDS_H

/*
 * The includer defines ADD32, XOR and ROL(v, n) for n in {16, 12, 8, 7}.
 * Four quarter rounds go in step: independent work lies side by side.
 */
#define CHACHA_STEP(x, a0, b0, d0, a1, b1, d1, a2, b2, d2, a3, b3, d3, n)      \
	do {                                                                   \
		x[a0] = ADD32(x[a0], x[b0]);                                   \
		x[a1] = ADD32(x[a1], x[b1]);                                   \
		x[a2] = ADD32(x[a2], x[b2]);                                   \
		x[a3] = ADD32(x[a3], x[b3]);                                   \
		x[d0] = ROL(XOR(x[d0], x[a0]), n);                             \
		x[d1] = ROL(XOR(x[d1], x[a1]), n);                             \
		x[d2] = ROL(XOR(x[d2], x[a2]), n);                             \
		x[d3] = ROL(XOR(x[d3], x[a3]), n);                             \
	} while (0)

/* 20 rounds over x[16], each vector one word of several blocks. */
#define CHACHA_ROUNDS(x)                                                       \
	do {                                                                   \
		for (int round = 0; round < 20; round += 2) {                  \
			CHACHA_STEP(x, 0, 4, 12, 1, 5, 13, 2, 6, 14, 3, 7, 15, 16); \
			CHACHA_STEP(x, 8, 12, 4, 9, 13, 5, 10, 14, 6, 11, 15, 7, 12); \
			CHACHA_STEP(x, 0, 4, 12, 1, 5, 13, 2, 6, 14, 3, 7, 15, 8); \
			CHACHA_STEP(x, 8, 12, 4, 9, 13, 5, 10, 14, 6, 11, 15, 7, 7); \
			CHACHA_STEP(x, 0, 5, 15, 1, 6, 12, 2, 7, 13, 3, 4, 14, 16); \
			CHACHA_STEP(x, 10, 15, 5, 11, 12, 6, 8, 13, 7, 9, 14, 4, 12); \
			CHACHA_STEP(x, 0, 5, 15, 1, 6, 12, 2, 7, 13, 3, 4, 14, 8); \
			CHACHA_STEP(x, 10, 15, 5, 11, 12, 6, 8, 13, 7, 9, 14, 4, 7); \
		}                                                              \
	} while (0)

static const uint32_t sigma[4] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 };

#endif /* WT_CRYPTO_ROUNDS_H */
