/* SPDX-License-Identifier: Apache-2.0 */
/* The internet checksum (RFC 1071): partial sums, pseudo headers, folding. */
#ifndef WT_WIRE_CHECKSUM_H
#define WT_WIRE_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * DOC: How sums are carried
 *
 * A sum is an unfolded ones' complement sum of 16-bit words as they lie in
 * memory, i.e. in the CPU's own byte order (RFC 1071, section 2.B: the byte
 * order of the words does not matter as long as the result is stored the same
 * way).  It is below 2^48 after checksum_add(), so that thousands of them can
 * be added with plain `+` before anybody folds.
 *
 * A part that is not the last must have an even length.
 */

/** checksum_add() - Add @len bytes at @p, from any alignment, to @sum */
uint64_t checksum_add(uint64_t sum, const void *p, size_t len);

/** checksum_add_portable() - The same without vectors: the reference of the tests */
uint64_t checksum_add_portable(uint64_t sum, const void *p, size_t len);

/** checksum_is_wide() - Whether this CPU has vectors for it, and they are right */
bool checksum_is_wide(void);

/** checksum_copy() - Copy @len bytes and add them to @sum in the same pass */
uint64_t checksum_copy(uint64_t sum, void *to, const void *from, size_t len);

/** checksum_word() - Add one 16-bit field given in host order to @sum */
static inline uint64_t checksum_word(uint64_t sum, uint16_t value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	value = __builtin_bswap16(value);
#endif
	return sum + value;
}

/** checksum_fold() - Reduce to 16 bits, memory order, not inverted */
static inline uint16_t checksum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffffu) + (sum >> 32);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	sum = (sum & 0xffffu) + (sum >> 16);
	return (uint16_t)sum;
}

/** checksum_valid() - Whether a sum over data and its checksum field comes out right */
static inline int checksum_valid(uint64_t sum)
{
	return checksum_fold(sum) == 0xffff;
}

/** checksum_store() - Write the checksum of @sum to @field, at any alignment */
static inline void checksum_store(void *field, uint64_t sum)
{
	uint16_t value = (uint16_t)~checksum_fold(sum);

	memcpy(field, &value, sizeof(value));
}

/**
 * checksum_store_udp() - The same for UDP, where 0 on the wire means "none"
 *
 * RFC 768: a sum that comes out as zero is sent as all ones.
 */
static inline void checksum_store_udp(void *field, uint64_t sum)
{
	uint16_t value = (uint16_t)~checksum_fold(sum);

	if (value == 0)
		value = 0xffff;
	memcpy(field, &value, sizeof(value));
}

/** checksum_store_partial() - Leave the uninverted sum for whoever completes it */
static inline void checksum_store_partial(void *field, uint64_t sum)
{
	uint16_t value = checksum_fold(sum);

	memcpy(field, &value, sizeof(value));
}

/**
 * checksum_pseudo() - Sum of the TCP/UDP/ICMPv6 pseudo header
 * @addresses:	Source and destination as they lie in the IP header, back to back
 * @address_len: 4 or 16: length of one of them
 * @protocol:	Upper layer protocol
 * @len:	Upper layer length, header and payload
 */
uint64_t checksum_pseudo(const void *addresses, size_t address_len, uint8_t protocol,
			 uint32_t len);

#endif /* WT_WIRE_CHECKSUM_H */
