/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20's rounds over 8 blocks in AVX2 registers, with Poly1305 of other bytes between them. */
#ifndef WT_CRYPTO_ROUNDS_AVX2_H
#define WT_CRYPTO_ROUNDS_AVX2_H

/*
 * ChaCha20 keeps the vector units busy and leaves the multiplier idle; Poly1305 with
 * the CPU's own multiplier is the opposite, and one long chain.  Between each other's
 * instructions 3 blocks of Poly1305 cost a double round next to nothing, while 4 lanes
 * of 26-bit limbs take half the time of the rounds themselves.
 *
 * In assembly, because compilers find no registers for it: rows a, b and d of the state,
 * half of row c and two temporaries are all 16 vectors, so that the other half of row c
 * rests in memory, and they move three times as much.  Vector instructions leave the
 * flags alone, so that a carry survives them.
 *
 * The includer defines vec, and compiles for AVX2 and BMI2.
 */
#define FED_BLOCKS 3 /* of Poly1305 for each double round */
#define DOUBLE_ROUNDS 10

#define Y(n) "%%ymm" #n
#define OP(name, from, to) name " " from "," to "," to "\n\t"

/* a += b; d ^= a; d rotated by the bytes that the shuffle in memory says; twice */
#define STEP_BYTES(a0, b0, d0, a1, b1, d1, shuffle)                            \
	OP("vpaddd", Y(b0), Y(a0)) OP("vpaddd", Y(b1), Y(a1))                  \
	OP("vpxor", Y(a0), Y(d0)) OP("vpxor", Y(a1), Y(d1))                    \
	OP("vpshufb", shuffle, Y(d0)) OP("vpshufb", shuffle, Y(d1))
/* The same with a rotation by bits; @right is 32 - @left */
#define STEP_BITS(a0, b0, d0, a1, b1, d1, left, right)                         \
	OP("vpaddd", Y(b0), Y(a0)) OP("vpaddd", Y(b1), Y(a1))                  \
	OP("vpxor", Y(a0), Y(d0)) OP("vpxor", Y(a1), Y(d1))                    \
	"vpslld $" left "," Y(d0) ",%%ymm14\n\t"                               \
	"vpslld $" left "," Y(d1) ",%%ymm15\n\t"                               \
	OP("vpsrld", "$" right, Y(d0)) OP("vpsrld", "$" right, Y(d1))          \
	OP("vpor", "%%ymm14", Y(d0)) OP("vpor", "%%ymm15", Y(d1))

/* Two quarter rounds in step, something else after each of their four steps. */
#define PAIR(a0, b0, c0, d0, a1, b1, c1, d1, else1, else2, else3, else4)       \
	STEP_BYTES(a0, b0, d0, a1, b1, d1, "%[by16]") else1                    \
	STEP_BITS(c0, d0, b0, c1, d1, b1, "12", "20") else2                    \
	STEP_BYTES(a0, b0, d0, a1, b1, d1, "%[by8]") else3                     \
	STEP_BITS(c0, d0, b0, c1, d1, b1, "7", "25") else4

/* Row c, words @from and the next one out to memory, @to and the next one in. */
#define SWAP_C(from0, from1, to0, to1)                                         \
	"vmovdqa %%ymm8," from0 "*32(%[x])\n\t"                                \
	"vmovdqa %%ymm9," from1 "*32(%[x])\n\t"                                \
	"vmovdqa " to0 "*32(%[x]),%%ymm8\n\t"                                  \
	"vmovdqa " to1 "*32(%[x]),%%ymm9\n\t"

/*
 * h = (h + block) * r as poly1305_blocks() does it, in five pieces.  In: h0, h1, h2;
 * between the pieces a0 and a1 have the lower column's sum, h1 and d1 the upper one's.
 */
#define POLY_1                                                                 \
	"addq (%[in]),%[h0]\n\t adcq 8(%[in]),%[h1]\n\t adcq $1,%[h2]\n\t"     \
	"movq %[h0],%%rdx\n\t mulxq %[r0],%[a0],%[a1]\n\t mulxq %[r1],%[h0],%[d1]\n\t"
#define POLY_2                                                                 \
	"movq %[h1],%%rdx\n\t mulxq %[s1],%[t0],%[t1]\n\t"                     \
	"addq %[t0],%[a0]\n\t adcq %[t1],%[a1]\n\t"                            \
	"mulxq %[r0],%[h1],%[t1]\n\t addq %[h0],%[h1]\n\t adcq %[t1],%[d1]\n\t"
#define POLY_3                                                                 \
	"movq %[s1],%[t0]\n\t imulq %[h2],%[t0]\n\t imulq %[r0],%[h2]\n\t"     \
	"addq %[a1],%[h1]\n\t adcq %[d1],%[h2]\n\t addq %[t0],%[h1]\n\t adcq $0,%[h2]\n\t"
/* What lies above 2^130 comes back times 5. */
#define POLY_4                                                                 \
	"movq %[h2],%[t0]\n\t movq %[h2],%[h0]\n\t andl $3,%k[h2]\n\t"         \
	"shrq $2,%[t0]\n\t andq $-4,%[h0]\n\t addq %[t0],%[h0]\n\t"
#define POLY_5                                                                 \
	"addq %[a0],%[h0]\n\t adcq $0,%[h1]\n\t adcq $0,%[h2]\n\t addq $16,%[in]\n\t"

#define FED_DOUBLE_ROUND                                                       \
	PAIR(0, 4, 8, 10, 1, 5, 9, 11, POLY_1, POLY_2, POLY_3, POLY_4)         \
	SWAP_C("8", "9", "10", "11")                                           \
	PAIR(2, 6, 8, 12, 3, 7, 9, 13, POLY_5, POLY_1, POLY_2, POLY_3)         \
	PAIR(0, 5, 8, 13, 1, 6, 9, 10, POLY_4, POLY_5, POLY_1, POLY_2)         \
	SWAP_C("10", "11", "8", "9")                                           \
	PAIR(2, 7, 8, 11, 3, 4, 9, 12, POLY_3, POLY_4, POLY_5, "")
#define DOUBLE_ROUND                                                           \
	PAIR(0, 4, 8, 10, 1, 5, 9, 11, "", "", "", "")                         \
	SWAP_C("8", "9", "10", "11")                                           \
	PAIR(2, 6, 8, 12, 3, 7, 9, 13, "", "", "", "")                         \
	PAIR(0, 5, 8, 13, 1, 6, 9, 10, "", "", "", "")                         \
	SWAP_C("10", "11", "8", "9")                                           \
	PAIR(2, 7, 8, 11, 3, 4, 9, 12, "", "", "", "")

#define MOVE_IN(word, n) "vmovdqa " #word "*32(%[x])," Y(n) "\n\t"
#define MOVE_OUT(word, n) "vmovdqa " Y(n) "," #word "*32(%[x])\n\t"
#define MOVE_ALL(move)                                                         \
	move(0, 0) move(1, 1) move(2, 2) move(3, 3) move(4, 4) move(5, 5)      \
	move(6, 6) move(7, 7) move(8, 8) move(9, 9) move(12, 10) move(13, 11)  \
	move(14, 12) move(15, 13)

#define VECTORS                                                                \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",\
	"xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static const vec by_16 = { 0x0504070601000302, 0x0d0c0f0e09080b0a, 0x0504070601000302,
			   0x0d0c0f0e09080b0a };
static const vec by_8 = { 0x0605040702010003, 0x0e0d0c0f0a09080b, 0x0605040702010003,
			  0x0e0d0c0f0a09080b };

INLINE void rounds_alone(vec x[16], unsigned int n)
{
	__asm__ volatile(MOVE_ALL(MOVE_IN)
			 "1:\n\t" DOUBLE_ROUND
			 "decl %[n]\n\t"
			 "jnz 1b\n\t" MOVE_ALL(MOVE_OUT)
			 : [n] "+r"(n)
			 : [x] "r"(x), [by16] "m"(by_16), [by8] "m"(by_8)
			 : VECTORS, "cc", "memory");
}

/* @n double rounds, and FED_BLOCKS blocks of @feed in each */
INLINE void rounds_fed(vec x[16], unsigned int n, struct poly_feed *feed)
{
	struct poly1305 *p = feed->poly;
	uint64_t h0 = p->h[0], h1 = p->h[1], h2 = p->h[2], a0, a1, d1, t0, t1;
	const uint8_t *in = feed->in;

	feed->blocks -= (size_t)n * FED_BLOCKS;
	__asm__ volatile(MOVE_ALL(MOVE_IN)
			 "1:\n\t" FED_DOUBLE_ROUND
			 "decl %[n]\n\t"
			 "jnz 1b\n\t" MOVE_ALL(MOVE_OUT)
			 : [h0] "+&r"(h0), [h1] "+&r"(h1), [h2] "+&r"(h2), [a0] "=&r"(a0),
			   [a1] "=&r"(a1), [d1] "=&r"(d1), [t0] "=&r"(t0), [t1] "=&r"(t1),
			   [in] "+&r"(in), [n] "+&r"(n)
			 : [x] "r"(x), [r0] "m"(p->r[0]), [r1] "m"(p->r[1]), [s1] "m"(p->s[1]),
			   [by16] "m"(by_16), [by8] "m"(by_8)
			 : VECTORS, "rdx", "cc", "memory");
	p->h[0] = h0;
	p->h[1] = h1;
	p->h[2] = h2;
	feed->in = in;
}

/* All 20 rounds, and as much of @feed (or NULL) as fits between them in whole FED_BLOCKS. */
INLINE void rounds8(vec x[16], struct poly_feed *feed)
{
	size_t fits = feed ? feed->blocks / FED_BLOCKS : 0;
	unsigned int fed = fits < DOUBLE_ROUNDS ? (unsigned int)fits : DOUBLE_ROUNDS;

	if (fed)
		rounds_fed(x, fed, feed);
	if (fed < DOUBLE_ROUNDS)
		rounds_alone(x, DOUBLE_ROUNDS - fed);
}

#endif /* WT_CRYPTO_ROUNDS_AVX2_H */
