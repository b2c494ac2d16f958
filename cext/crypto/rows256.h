/* SPDX-License-Identifier: Apache-2.0 */
/* Few ChaCha20 blocks in 256-bit registers: what a lone small packet takes. */
#ifndef WT_CRYPTO_ROWS256_H
#define WT_CRYPTO_ROWS256_H

/*
 * A register holds row a (b, c, d) of two blocks.  The rows of a block depend on
 * one another, so that the time is that of the chain of 20 rounds, whether one,
 * two or (with 32 registers) four sets of two blocks run beside each other.  Not
 * wider: on CPUs that split 512-bit operations the chain would take longer.
 *
 * The includer defines ROL256(v, n).
 */
#define ADD256 _mm256_add_epi32
#define XOR256 _mm256_xor_si256

INLINE __m256i load256(const void *p)
{
	return _mm256_loadu_si256(p);
}

INLINE void xor_whole256(uint8_t *out, const uint8_t *in, __m256i first, __m256i second)
{
	__m256i a = XOR256(first, load256(in)), b = XOR256(second, load256(in + 32));

	_mm256_storeu_si256((__m256i *)out, a);
	_mm256_storeu_si256((__m256i *)(out + 32), b);
}

INLINE void xor_lane256(const struct block_group *g, unsigned int i, __m256i first, __m256i second)
{
	uint8_t stream[CHACHA_BLOCK];

	if (g->len[i] == CHACHA_BLOCK) {
		xor_whole256(g->out[i], g->in[i], first, second);
		return;
	}
	_mm256_storeu_si256((__m256i *)stream, first);
	_mm256_storeu_si256((__m256i *)(stream + 32), second);
	lanes_xor(g->out[i], g->in[i], stream, g->len[i]);
	secret_erase(stream, sizeof(stream));
}

struct rows256 {
	__m256i a, b, c, d;
};

INLINE __m256i two_rows256(const void *a, const void *b)
{
	return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(a)),
				       _mm_loadu_si128(b), 1);
}

INLINE __m128i last_row(const struct block_group *g, unsigned int i)
{
	/* Not as a load of four words: they were stored one by one a moment ago. */
	return _mm_setr_epi32((int)g->counter[i], (int)g->nonce[0][i], (int)g->nonce[1][i],
			      (int)g->nonce[2][i]);
}

INLINE void rows_load(struct rows256 *r, const struct block_group *g, unsigned int first)
{
	unsigned int i = first < g->n ? first : 0, k = first + 1 < g->n ? first + 1 : 0;

	r->a = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)sigma));
	r->b = two_rows256(g->key[i], g->key[k]);
	r->c = two_rows256(g->key[i] + 16, g->key[k] + 16);
	r->d = _mm256_set_m128i(last_row(g, k), last_row(g, i));
}

INLINE void row_round(struct rows256 *x)
{
	x->a = ADD256(x->a, x->b);
	x->d = ROL256(XOR256(x->d, x->a), 16);
	x->c = ADD256(x->c, x->d);
	x->b = ROL256(XOR256(x->b, x->c), 12);
	x->a = ADD256(x->a, x->b);
	x->d = ROL256(XOR256(x->d, x->a), 8);
	x->c = ADD256(x->c, x->d);
	x->b = ROL256(XOR256(x->b, x->c), 7);
}

/* XOR the key stream of up to 2 * @sets blocks; @sets is a constant. */
INLINE void rows_xor_group(const struct block_group *g, const unsigned int sets)
{
	struct rows256 s[4], x[4];

	UNROLL
	for (unsigned int k = 0; k < sets; k++) {
		rows_load(&s[k], g, 2 * k);
		x[k] = s[k];
	}
	for (int round = 0; round < 20; round += 2) {
		UNROLL
		for (unsigned int k = 0; k < sets; k++) {
			row_round(&x[k]);
			x[k].b = _mm256_shuffle_epi32(x[k].b, 0x39);
			x[k].c = _mm256_shuffle_epi32(x[k].c, 0x4e);
			x[k].d = _mm256_shuffle_epi32(x[k].d, 0x93);
		}
		UNROLL
		for (unsigned int k = 0; k < sets; k++) {
			row_round(&x[k]);
			x[k].b = _mm256_shuffle_epi32(x[k].b, 0x93);
			x[k].c = _mm256_shuffle_epi32(x[k].c, 0x4e);
			x[k].d = _mm256_shuffle_epi32(x[k].d, 0x39);
		}
	}
	UNROLL
	for (unsigned int k = 0; k < sets; k++) {
		__m256i a = ADD256(x[k].a, s[k].a), b = ADD256(x[k].b, s[k].b);
		__m256i c = ADD256(x[k].c, s[k].c), d = ADD256(x[k].d, s[k].d);

		if (2 * k < g->n)
			xor_lane256(g, 2 * k, _mm256_permute2x128_si256(a, b, 0x20),
				    _mm256_permute2x128_si256(c, d, 0x20));
		if (2 * k + 1 < g->n)
			xor_lane256(g, 2 * k + 1, _mm256_permute2x128_si256(a, b, 0x31),
				    _mm256_permute2x128_si256(c, d, 0x31));
	}
}

#endif /* WT_CRYPTO_ROWS256_H */
