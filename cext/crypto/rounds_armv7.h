/* SPDX-License-Identifier: Apache-2.0 */
/* ChaCha20's rounds over 4 blocks in the 16 NEON registers of a 32-bit ARM. */
#ifndef WT_CRYPTO_ROUNDS_ARMV7_H
#define WT_CRYPTO_ROUNDS_ARMV7_H

/*
 * In assembly, because compilers find no registers for it: rows a, b and d of the state,
 * half of row c and two temporaries are all 16 vectors, so that the other half of row c
 * rests in memory.  Compilers move six times as much, at two instructions each.
 *
 * The includer defines vec and INLINE, and compiles for NEON.
 */
#define Q(n) "q" #n
#define OP(name, to, a, b) name " " to "," a "," b "\n\t"

/* a += b; d ^= a; d rotated by 16; twice */
#define STEP_16(a0, b0, d0, a1, b1, d1)                                        \
	OP("vadd.i32", Q(a0), Q(a0), Q(b0)) OP("vadd.i32", Q(a1), Q(a1), Q(b1))\
	OP("veor", Q(d0), Q(d0), Q(a0)) OP("veor", Q(d1), Q(d1), Q(a1))        \
	"vrev32.16 " Q(d0) "," Q(d0) "\n\t vrev32.16 " Q(d1) "," Q(d1) "\n\t"
/* The same with another rotation; @right is 32 - @left */
#define STEP(a0, b0, d0, a1, b1, d1, left, right)                              \
	OP("vadd.i32", Q(a0), Q(a0), Q(b0)) OP("vadd.i32", Q(a1), Q(a1), Q(b1))\
	OP("veor", "q14", Q(d0), Q(a0)) OP("veor", "q15", Q(d1), Q(a1))        \
	OP("vshl.i32", Q(d0), "q14", "#" left)                                 \
	OP("vshl.i32", Q(d1), "q15", "#" left)                                 \
	OP("vsri.32", Q(d0), "q14", "#" right)                                 \
	OP("vsri.32", Q(d1), "q15", "#" right)
/* Two quarter rounds in step */
#define PAIR(a0, b0, c0, d0, a1, b1, c1, d1)                                   \
	STEP_16(a0, b0, d0, a1, b1, d1)                                        \
	STEP(c0, d0, b0, c1, d1, b1, "12", "20")                               \
	STEP(a0, b0, d0, a1, b1, d1, "8", "24")                                \
	STEP(c0, d0, b0, c1, d1, b1, "7", "25")

#define DOUBLE_ROUND                                                           \
	PAIR(0, 4, 8, 10, 1, 5, 9, 11)                                         \
	"vstmia %[c], {d16-d19}\n\t vldmia %[e], {d16-d19}\n\t"                \
	PAIR(2, 6, 8, 12, 3, 7, 9, 13)                                         \
	PAIR(0, 5, 8, 13, 1, 6, 9, 10)                                         \
	"vstmia %[e], {d16-d19}\n\t vldmia %[c], {d16-d19}\n\t"                \
	PAIR(2, 7, 8, 11, 3, 4, 9, 12)

/* Two words of what the rounds began with, added */
#define ADD_TWO(first, second)                                                 \
	"vldmia %[in]!, {d28-d31}\n\t"                                         \
	OP("vadd.i32", Q(first), Q(first), "q14") OP("vadd.i32", Q(second), Q(second), "q15")

/* The 20 rounds, and what they began with added; row c's words 8 and 9 at c, 10 and 11 at e */
INLINE void rounds4(vec x[16], const vec in[16])
{
	unsigned int n = 10;

	__asm__ volatile("vldmia %[in]!, {d0-d15}\n\t"
			 "add %[in], %[in], #32\n\t"
			 "vldmia %[in]!, {d16-d27}\n\t"
			 "vstmia %[e], {d16-d19}\n\t"
			 "sub %[in], %[in], #128\n\t"
			 "vldmia %[in], {d16-d19}\n\t"
			 "sub %[in], %[in], #128\n\t"
			 "1:\n\t" DOUBLE_ROUND
			 "subs %[n], %[n], #1\n\t"
			 "bne 1b\n\t"
			 ADD_TWO(0, 1) ADD_TWO(2, 3) ADD_TWO(4, 5) ADD_TWO(6, 7)
			 "vstmia %[a], {d0-d15}\n\t"
			 "vldmia %[e], {d0-d3}\n\t"
			 ADD_TWO(8, 9) ADD_TWO(0, 1) ADD_TWO(10, 11) ADD_TWO(12, 13)
			 "vstmia %[c], {d16-d19}\n\t"
			 "vstmia %[e], {d0-d3}\n\t"
			 "vstmia %[d], {d20-d27}\n\t"
			 : [n] "+r"(n), [in] "+r"(in)
			 : [a] "r"(x), [c] "r"(x + 8), [e] "r"(x + 10), [d] "r"(x + 12)
			 : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11",
			   "q12", "q13", "q14", "q15", "cc", "memory");
}

#endif /* WT_CRYPTO_ROUNDS_ARMV7_H */
