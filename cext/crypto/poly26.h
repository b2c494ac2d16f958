/* SPDX-License-Identifier: Apache-2.0 */
/* Poly1305 in lanes of 26-bit limbs; the including variant names its instructions. */
#ifndef WT_CRYPTO_POLY26_H
#define WT_CRYPTO_POLY26_H

/*
 * For vectors that multiply 32 x 32 bits into 64.  The includer defines
 *
 *	POLY_LANES		lanes of 64 bits in a vector
 *	wide, half		types: 64-bit lanes; their low 32 bits as factors
 *	W_ADD, W_AND, W_OR	on wide
 *	W_SHR(v, n), W_SHL(v, n)
 *	W_SET1(x), W_LOAD(p), W_STORE(p, v)
 *	MULTIPLY(a, b), MULTIPLY_ADD(sum, a, b), HALF(v)
 *	load_blocks(wide *lo, wide *hi, const uint8_t *const p[POLY_LANES])
 *				16 bytes of each lane, as two words
 *
 * and gets poly26_tags() and poly26_long() for its struct lane_ops.
 */
#define MASK26 ((UINT64_C(1) << 26) - 1)

struct limbs26 {
	wide v[5];
};

/* A factor: its limbs, and 5 times the upper four. */
struct factor26 {
	half r[5], s[5];
};

INLINE void factor_of(struct factor26 *f, const struct limbs26 *l)
{
	UNROLL
	for (int i = 0; i < 5; i++) {
		f->r[i] = HALF(l->v[i]);
		f->s[i] = HALF(W_ADD(l->v[i], W_SHL(l->v[i], 2)));
	}
}

/* d = a * f, or d += a * f; limbs of a up to 2^28. */
INLINE void products26(wide d[5], const struct limbs26 *l, const struct factor26 *f, const bool add)
{
	half a[5];

	UNROLL
	for (int i = 0; i < 5; i++)
		a[i] = HALF(l->v[i]);
	UNROLL
	for (int i = 0; i < 5; i++)
		d[i] = add ? MULTIPLY_ADD(d[i], a[0], f->r[i]) : MULTIPLY(a[0], f->r[i]);
	UNROLL
	for (int k = 1; k < 5; k++) {
		UNROLL
		for (int i = 0; i < 5; i++)
			d[i] = MULTIPLY_ADD(d[i], a[k], i < k ? f->s[i + 5 - k] : f->r[i - k]);
	}
}

/* Limbs of h below 2^26 and a little. */
INLINE void carry26(struct limbs26 *h, wide d[5])
{
	const wide mask = W_SET1(MASK26);
	wide c;

	/* Two chains of carries, from limb 0 and from limb 3. */
	d[1] = W_ADD(d[1], W_SHR(d[0], 26));
	d[0] = W_AND(d[0], mask);
	d[4] = W_ADD(d[4], W_SHR(d[3], 26));
	d[3] = W_AND(d[3], mask);
	d[2] = W_ADD(d[2], W_SHR(d[1], 26));
	h->v[1] = W_AND(d[1], mask);
	c = W_SHR(d[4], 26);
	h->v[4] = W_AND(d[4], mask);
	d[0] = W_ADD(d[0], W_ADD(c, W_SHL(c, 2)));
	d[3] = W_ADD(d[3], W_SHR(d[2], 26));
	h->v[2] = W_AND(d[2], mask);
	h->v[1] = W_ADD(h->v[1], W_SHR(d[0], 26));
	h->v[0] = W_AND(d[0], mask);
	h->v[4] = W_ADD(h->v[4], W_SHR(d[3], 26));
	h->v[3] = W_AND(d[3], mask);
}

/* h = h * f; limbs of h up to 2^28. */
INLINE void multiply26(struct limbs26 *h, const struct factor26 *f)
{
	wide d[5];

	products26(d, h, f, false);
	carry26(h, d);
}

INLINE void add_block(struct limbs26 *h, wide lo, wide hi)
{
	const wide mask = W_SET1(MASK26);

	h->v[0] = W_ADD(h->v[0], W_AND(lo, mask));
	h->v[1] = W_ADD(h->v[1], W_AND(W_SHR(lo, 26), mask));
	h->v[2] = W_ADD(h->v[2], W_AND(W_OR(W_SHR(lo, 52), W_SHL(hi, 12)), mask));
	h->v[3] = W_ADD(h->v[3], W_AND(W_SHR(hi, 14), mask));
	h->v[4] = W_ADD(h->v[4], W_OR(W_SHR(hi, 40), W_SET1(UINT64_C(1) << 24)));
}

/*
 * h = (h + first) * f^2 + second * f: a block's products wait for the carries of
 * the one before, so that two at once take little longer than one.
 */
INLINE void add_two_blocks(struct limbs26 *h, const uint8_t *const first[POLY_LANES],
			   const uint8_t *const second[POLY_LANES], const struct factor26 *f,
			   const struct factor26 *squared)
{
	struct limbs26 other;
	wide d[5], lo, hi;

	UNROLL
	for (int i = 0; i < 5; i++)
		other.v[i] = W_SET1(0);
	load_blocks(&lo, &hi, second);
	add_block(&other, lo, hi);
	load_blocks(&lo, &hi, first);
	add_block(h, lo, hi);
	products26(d, &other, f, false);
	products26(d, h, squared, true);
	carry26(h, d);
}

INLINE void load_limbs(struct limbs26 *l, const uint64_t from[5][POLY_LANES])
{
	UNROLL
	for (int i = 0; i < 5; i++)
		l->v[i] = W_LOAD(from[i]);
}

static void poly26_tags(const struct poly_lane *lane, unsigned int n)
{
	struct poly1305 st[POLY_LANES];
	uint64_t limb[5][POLY_LANES], lens[POLY_LANES], l[5];
	uint8_t last[POLY_LANES][POLY1305_BLOCK];
	const uint8_t *data[POLY_LANES];
	size_t shortest = lane[0].len, longest = lane[0].len, at;
	struct factor26 f, squared;
	struct limbs26 h, next;
	wide lo, hi, alive;

	for (unsigned int i = 0; i < POLY_LANES; i++) {
		const struct poly_lane *p = &lane[i < n ? i : 0];

		data[i] = p->data;
		lens[i] = p->len;
		shortest = p->len < shortest ? p->len : shortest;
		longest = p->len > longest ? p->len : longest;
		poly1305_init(&st[i], p->key);
		poly1305_r26(l, &st[i]);
		for (int k = 0; k < 5; k++)
			limb[k][i] = l[k];
	}
	load_limbs(&h, limb);
	factor_of(&f, &h);
	multiply26(&h, &f);
	factor_of(&squared, &h);
	UNROLL
	for (int i = 0; i < 5; i++)
		h.v[i] = W_SET1(0);

	for (at = 0; at + 2 * POLY1305_BLOCK <= shortest; at += 2 * POLY1305_BLOCK) {
		const uint8_t *first[POLY_LANES], *second[POLY_LANES];

		UNROLL
		for (int i = 0; i < POLY_LANES; i++) {
			first[i] = data[i] + at;
			second[i] = first[i] + POLY1305_BLOCK;
		}
		add_two_blocks(&h, first, second, &f, &squared);
	}
	for (int i = 0; i < POLY_LANES; i++)
		data[i] += at;
	for (; at + POLY1305_BLOCK <= shortest; at += POLY1305_BLOCK) {
		load_blocks(&lo, &hi, data);
		add_block(&h, lo, hi);
		multiply26(&h, &f);
		for (int i = 0; i < POLY_LANES; i++)
			data[i] += POLY1305_BLOCK;
	}
	/* What is left, lane by lane: a lane whose packet has ended keeps its h. */
	for (; at < longest; at += POLY1305_BLOCK) {
		const uint8_t *from[POLY_LANES];
		uint64_t mask[POLY_LANES];

		for (int i = 0; i < POLY_LANES; i++) {
			size_t left = lens[i] > at ? lens[i] - at : 0;

			left = left < POLY1305_BLOCK ? left : POLY1305_BLOCK;
			memset(last[i], 0, POLY1305_BLOCK);
			memcpy(last[i], data[i], left);
			data[i] += left;
			from[i] = last[i];
			mask[i] = left ? UINT64_MAX : 0;
		}
		load_blocks(&lo, &hi, from);
		next = h;
		add_block(&next, lo, hi);
		multiply26(&next, &f);
		alive = W_LOAD(mask);
		UNROLL
		for (int i = 0; i < 5; i++)
			h.v[i] = W_OR(W_AND(next.v[i], alive), W_ANDNOT(alive, h.v[i]));
	}
	add_block(&h, W_SET1(0), W_LOAD(lens));
	multiply26(&h, &f);
	UNROLL
	for (int i = 0; i < 5; i++)
		W_STORE(limb[i], h.v[i]);
	for (unsigned int i = 0; i < n; i++) {
		for (int k = 0; k < 5; k++)
			l[k] = limb[k][i];
		poly1305_set_h26(&st[i], l);
		poly1305_final(&st[i], lane[i].tag);
	}
	secret_erase(st, sizeof(st));
	secret_erase(limb, sizeof(limb));
	secret_erase(l, sizeof(l));
}

/*
 * One long message: lane k takes every POLY_LANES-th block and multiplies by
 * that power of r; at the end each lane gets the power that its place needs.
 */
static void poly26_long(struct poly1305 *p, const uint8_t *in, size_t blocks)
{
	uint64_t limb[5][POLY_LANES], l[5], r[5];
	size_t rows = blocks / POLY_LANES, rest = blocks % POLY_LANES;
	const uint8_t *data[POLY_LANES];
	struct limbs26 h, power[POLY_LANES + 1];
	struct factor26 f;
	wide lo, hi;

	poly1305_r26(r, p);
	UNROLL
	for (int k = 0; k < 5; k++)
		power[1].v[k] = W_SET1(r[k]);
	factor_of(&f, &power[1]);
	UNROLL
	for (int i = 2; i <= POLY_LANES; i++) {
		power[i] = power[i - 1];
		multiply26(&power[i], &f);
	}
	factor_of(&f, &power[POLY_LANES]);

	poly1305_h26(l, p);
	memset(limb, 0, sizeof(limb));
	for (int k = 0; k < 5; k++)
		limb[k][0] = l[k];
	load_limbs(&h, limb);
	for (int i = 0; i < POLY_LANES; i++)
		data[i] = in + i * POLY1305_BLOCK;
	for (size_t row = 0; row < rows; row++) {
		load_blocks(&lo, &hi, data);
		add_block(&h, lo, hi);
		if (row + 1 == rows)
			break;
		multiply26(&h, &f);
		for (int i = 0; i < POLY_LANES; i++)
			data[i] += POLY_LANES * POLY1305_BLOCK;
	}
	/* Lane i still needs r^(POLY_LANES - i). */
	for (int k = 0; k < 5; k++) {
		uint64_t same[POLY_LANES];

		for (int i = 0; i < POLY_LANES; i++) {
			W_STORE(same, power[POLY_LANES - i].v[k]);
			limb[k][i] = same[i];
		}
		secret_erase(same, sizeof(same));
	}
	{
		struct limbs26 each;

		load_limbs(&each, limb);
		factor_of(&f, &each);
		multiply26(&h, &f);
	}
	for (int k = 0; k < 5; k++) {
		W_STORE(limb[k], h.v[k]);
		l[k] = 0;
		for (int i = 0; i < POLY_LANES; i++)
			l[k] += limb[k][i];
	}
	poly1305_set_h26(p, l);
	secret_erase(limb, sizeof(limb));
	secret_erase(l, sizeof(l));
	secret_erase(r, sizeof(r));
	poly1305_blocks(p, in + rows * POLY_LANES * POLY1305_BLOCK, rest, 1);
}

#endif /* WT_CRYPTO_POLY26_H */
