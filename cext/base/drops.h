/* SPDX-License-Identifier: Apache-2.0 */
/* Why a packet was not passed on: one enum for all rooms, one counter each. */
#ifndef WT_BASE_DROPS_H
#define WT_BASE_DROPS_H

#include <stdint.h>

/**
 * DOC: Drop reasons
 *
 * A packet that ends here is counted under exactly one reason and otherwise
 * forgotten: no exception, no log line.  The names are what `-status --json`
 * and the metrics print, so a name once released stays.  Add at the end of a
 * room's block; the numbers are not stable and never leave the process.
 */
#define WT_DROP_REASONS(X)                                                     \
	/* wireguard, inbound */                                               \
	X(WG_TOO_SHORT, "wg_too_short")                                        \
	X(WG_BAD_TYPE, "wg_bad_type")                                          \
	X(WG_BAD_LENGTH, "wg_bad_length")                                      \
	X(WG_BAD_MAC1, "wg_bad_mac1")                                          \
	X(WG_BAD_MAC2, "wg_bad_mac2")                                          \
	X(WG_UNDER_LOAD, "wg_under_load")                                      \
	X(WG_RATE_LIMITED, "wg_rate_limited")                                  \
	X(WG_UNKNOWN_INDEX, "wg_unknown_index")                                \
	X(WG_BAD_HANDSHAKE, "wg_bad_handshake")                                \
	X(WG_UNKNOWN_PEER, "wg_unknown_peer")                                  \
	X(WG_OLD_TIMESTAMP, "wg_old_timestamp")                                \
	X(WG_INITIATION_FLOOD, "wg_initiation_flood")                          \
	X(WG_BAD_COOKIE, "wg_bad_cookie")                                      \
	X(WG_BAD_TAG, "wg_bad_tag")                                            \
	X(WG_REPLAY, "wg_replay")                                              \
	X(WG_KEY_EXPIRED, "wg_key_expired")                                    \
	X(WG_BAD_INNER, "wg_bad_inner")                                        \
	X(WG_SOURCE_NOT_ALLOWED, "wg_source_not_allowed")                      \
	/* wireguard, outbound */                                              \
	X(WG_NO_ROUTE, "wg_no_route")                                          \
	X(WG_NO_ENDPOINT, "wg_no_endpoint")                                    \
	X(WG_NO_PRIVATE_KEY, "wg_no_private_key")                              \
	X(WG_STAGED_FULL, "wg_staged_full")                                    \
	X(WG_STAGED_EXPIRED, "wg_staged_expired")                              \
	X(WG_HANDSHAKE_QUEUE_FULL, "wg_handshake_queue_full")                  \
	/* host */                                                             \
	X(HOST_SEND_FAILED, "host_send_failed")                                \
	X(HOST_SEND_BUFFER_FULL, "host_send_buffer_full")                      \
	X(HOST_TUN_WRITE_FAILED, "host_tun_write_failed")                      \
	X(HOST_TRUNCATED, "host_truncated")                                    \
	X(HOST_BAD_VNET_HEADER, "host_bad_vnet_header")                        \
	/* engine */                                                           \
	X(ENGINE_NO_BUFFER, "engine_no_buffer")                                \
	X(ENGINE_NO_INNER_PORT, "engine_no_inner_port")                        \
	X(ENGINE_TOO_BIG, "engine_too_big")                                    \
	X(ENGINE_TTL_EXPIRED, "engine_ttl_expired")                            \
	/* netstack */                                                         \
	X(NS_BAD_HEADER, "ns_bad_header")                                      \
	X(NS_BAD_CHECKSUM, "ns_bad_checksum")                                  \
	X(NS_BAD_FRAGMENT, "ns_bad_fragment")                                  \
	X(NS_REASSEMBLY_FULL, "ns_reassembly_full")                            \
	X(NS_REASSEMBLY_TIMEOUT, "ns_reassembly_timeout")                      \
	X(NS_NOT_OURS, "ns_not_ours")                                          \
	X(NS_DENIED, "ns_denied")                                              \
	X(NS_NO_LISTENER, "ns_no_listener")                                    \
	X(NS_FLOW_TABLE_FULL, "ns_flow_table_full")                            \
	X(NS_HALF_OPEN_FULL, "ns_half_open_full")                              \
	X(NS_SLAB_FULL, "ns_slab_full")                                        \
	X(NS_TCP_OUT_OF_WINDOW, "ns_tcp_out_of_window")                        \
	X(NS_TCP_BAD_STATE, "ns_tcp_bad_state")                                \
	X(NS_TCP_PAWS, "ns_tcp_paws")                                          \
	X(NS_RATE_LIMITED, "ns_rate_limited")                                  \
	X(NS_TTL_EXPIRED, "ns_ttl_expired")                                    \
	X(NS_ANSWERS_FULL, "ns_answers_full")                                  \
	X(NS_TCP_BAD_ACK, "ns_tcp_bad_ack")                                    \
	X(NS_TCP_BAD_RESET, "ns_tcp_bad_reset")                                \
	X(NS_RECEIVE_FULL, "ns_receive_full")                                  \
	X(NS_BAD_COOKIE, "ns_bad_cookie")                                      \
	X(NS_ICMP_IGNORED, "ns_icmp_ignored")

enum drop_reason {
#define X(name, text) DROP_##name,
	WT_DROP_REASONS(X)
#undef X
	DROP_REASON_COUNT,
	DROP_NONE = -1,
};

/**
 * struct drop_counters - How many packets ended for which reason
 * @count:	Indexed by enum drop_reason; written by one thread
 */
struct drop_counters {
	uint64_t count[DROP_REASON_COUNT];
};

/** drop_reason_name() - The stable name of a reason, for status and metrics */
const char *drop_reason_name(enum drop_reason reason);

static inline void drop(struct drop_counters *c, enum drop_reason reason)
{
	c->count[reason]++;
}

#endif /* WT_BASE_DROPS_H */
