/* SPDX-License-Identifier: Apache-2.0 */
/* One TCP segment taken apart: header fields in host order, options, payload. */
#ifndef WT_WIRE_TCP_H
#define WT_WIRE_TCP_H

#include <stdint.h>

#include "wire/ip.h"

/* Offsets of the two fields that wire/ip.h does not name. */
enum {
	TCP_SOURCE_PORT = 0,
	TCP_DESTINATION_PORT = 2,
	TCP_MAX_HEADER_LEN = 60,
	TCP_MAX_OPTIONS_LEN = 40,
};

/* Option kinds: RFC 9293, 7323, 2018, 5482. */
enum {
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTION_MSS = 2,
	TCP_OPTION_WINDOW_SCALE = 3,
	TCP_OPTION_SACK_PERMITTED = 4,
	TCP_OPTION_SACK = 5,
	TCP_OPTION_TIMESTAMP = 8,
	TCP_OPTION_USER_TIMEOUT = 28,
	TCP_MAX_WINDOW_SCALE = 14,
	TCP_MAX_SACK_BLOCKS = 4,
};

/* Which options a segment carried, in tcp_segment.options. */
enum {
	TCP_HAS_MSS = 1,
	TCP_HAS_WINDOW_SCALE = 2,
	TCP_HAS_SACK_PERMITTED = 4,
	TCP_HAS_TIMESTAMP = 8,
	TCP_HAS_USER_TIMEOUT = 16,
};

/**
 * struct sequence_range - Sequence numbers [start, end)
 */
struct sequence_range {
	uint32_t start;
	uint32_t end;
};

/**
 * struct tcp_segment - What the header of one received segment says
 * @source_port:	The sender's port
 * @destination_port:	Ours
 * @flags:		TCP_FIN ... TCP_CWR
 * @options:		TCP_HAS_*
 * @window_scale:	Shift count, already limited to 14
 * @sacks:		Number of valid entries in @sack
 * @seq:		Sequence number of the first byte, or of the SYN
 * @ack:		Acknowledgement number; only with TCP_ACK
 * @window:		As on the wire, unscaled
 * @mss:		Of the MSS option
 * @ts_value:		TSval
 * @ts_echo:		TSecr
 * @user_timeout_s:	RFC 5482, in seconds whatever the granularity bit said
 * @payload_len:	Bytes at @payload
 * @sack:		SACK blocks in the order they came; start != end
 * @payload:		Points into the packet
 */
struct tcp_segment {
	uint16_t source_port;
	uint16_t destination_port;
	uint8_t flags;
	uint8_t options;
	uint8_t window_scale;
	uint8_t sacks;
	uint32_t seq;
	uint32_t ack;
	uint16_t window;
	uint16_t mss;
	uint32_t ts_value;
	uint32_t ts_echo;
	uint32_t user_timeout_s;
	uint32_t payload_len;
	struct sequence_range sack[TCP_MAX_SACK_BLOCKS];
	const uint8_t *payload;
};

/* Sequence arithmetic, modulo 2^32 (RFC 9293 section 3.4). */
static inline int seq_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline int seq_leq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

static inline int seq_gt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline int seq_geq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_gt(a, b) ? a : b;
}

#endif /* WT_WIRE_TCP_H */
