/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and stores of a stated byte order, from any alignment. */
#ifndef WT_BASE_ENDIAN_H
#define WT_BASE_ENDIAN_H

#include <stdint.h>
#include <string.h>

/*
 * Every multi-byte field of a packet goes through these: a cast would trap on
 * CPUs without unaligned access and be wrong on half of them.  Compilers turn
 * each into one instruction where the CPU has one.
 */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WT_LE16(x) (x)
#define WT_LE32(x) (x)
#define WT_LE64(x) (x)
#define WT_BE16(x) __builtin_bswap16(x)
#define WT_BE32(x) __builtin_bswap32(x)
#define WT_BE64(x) __builtin_bswap64(x)
#else
#define WT_LE16(x) __builtin_bswap16(x)
#define WT_LE32(x) __builtin_bswap32(x)
#define WT_LE64(x) __builtin_bswap64(x)
#define WT_BE16(x) (x)
#define WT_BE32(x) (x)
#define WT_BE64(x) (x)
#endif

#define WT_DEFINE_ACCESSORS(order, bits, convert)                              \
	static inline uint##bits##_t load_##order##bits(const void *p)         \
	{                                                                      \
		uint##bits##_t v;                                              \
		memcpy(&v, p, sizeof(v));                                      \
		return (uint##bits##_t)convert(v);                             \
	}                                                                      \
	static inline void store_##order##bits(void *p, uint##bits##_t v)      \
	{                                                                      \
		v = (uint##bits##_t)convert(v);                                \
		memcpy(p, &v, sizeof(v));                                      \
	}

WT_DEFINE_ACCESSORS(le, 16, WT_LE16)
WT_DEFINE_ACCESSORS(le, 32, WT_LE32)
WT_DEFINE_ACCESSORS(le, 64, WT_LE64)
WT_DEFINE_ACCESSORS(be, 16, WT_BE16)
WT_DEFINE_ACCESSORS(be, 32, WT_BE32)
WT_DEFINE_ACCESSORS(be, 64, WT_BE64)

#undef WT_DEFINE_ACCESSORS

#endif /* WT_BASE_ENDIAN_H */
