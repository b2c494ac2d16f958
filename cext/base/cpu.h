/* SPDX-License-Identifier: Apache-2.0 */
/* What instructions an x86-64 CPU and its operating system offer. */
#ifndef WT_BASE_CPU_H
#define WT_BASE_CPU_H

#ifdef __x86_64__
#include <cpuid.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Not __builtin_cpu_supports(): it reads a table that the compiler's own run-time
 * library fills, and there are compilers whose library leaves it empty (Zig's, which
 * makes the static executable), so that every answer is no.
 */
#define CPU_XSAVE_YMM 0x06u /* of XCR0: the system saves SSE and AVX state, */
#define CPU_XSAVE_ZMM 0xe6u /* and that of AVX-512 */

struct cpu_leaf7 {
	uint32_t ebx, ecx;
};

/* Intel's Software Developer's Manual, volume 1, sections 14.3 and 15.2 to 15.4. */
static inline bool cpu_saves(uint32_t states)
{
	uint32_t eax, ebx, ecx, edx, low, high;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & states) == states;
}

/* CPUID leaf 7; all zero on a CPU that has none. */
static inline struct cpu_leaf7 cpu_extended(void)
{
	struct cpu_leaf7 leaf = { 0, 0 };
	uint32_t eax, edx;

	if (!__get_cpuid_count(7, 0, &eax, &leaf.ebx, &leaf.ecx, &edx))
		leaf.ebx = leaf.ecx = 0;
	return leaf;
}

static inline bool cpu_has_avx2(void)
{
	return cpu_saves(CPU_XSAVE_YMM) && (cpu_extended().ebx & bit_AVX2);
}

static inline bool cpu_has_avx2_bmi2(void)
{
	return cpu_has_avx2() && (cpu_extended().ebx & bit_BMI2);
}

/* AVX-512 as Ice Lake and Zen 4 have it: F, BW, DQ, VL, IFMA, VBMI2, and BMI2 */
static inline bool cpu_has_avx512_ifma(void)
{
	const uint32_t ebx = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL |
			     bit_AVX512IFMA | bit_BMI2;
	struct cpu_leaf7 leaf = cpu_extended();

	return cpu_saves(CPU_XSAVE_ZMM) && (leaf.ebx & ebx) == ebx && (leaf.ecx & bit_AVX512VBMI2);
}
#endif /* __x86_64__ */

#endif /* WT_BASE_CPU_H */
