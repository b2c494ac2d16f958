/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's numbers: WireGuard paper, section 6.1, and the kernel's choices. */
#ifndef WT_WIREGUARD_CONSTANTS_H
#define WT_WIREGUARD_CONSTANTS_H

#include <stdint.h>

#define NS_PER_SECOND			UINT64_C(1000000000)
#define NS_PER_MS			UINT64_C(1000000)

#define REKEY_AFTER_MESSAGES		(UINT64_C(1) << 60)
#define REJECT_AFTER_MESSAGES		(UINT64_MAX - (UINT64_C(1) << 13))
#define REKEY_AFTER_TIME_NS		(120 * NS_PER_SECOND)
#define REJECT_AFTER_TIME_NS		(180 * NS_PER_SECOND)
#define REKEY_ATTEMPT_TIME_NS		(90 * NS_PER_SECOND)
#define REKEY_TIMEOUT_NS		(5 * NS_PER_SECOND)
#define KEEPALIVE_TIMEOUT_NS		(10 * NS_PER_SECOND)

/* Up to a third of a second, so that two sides do not stay in step. */
#define REKEY_TIMEOUT_JITTER_MAX_MS	334

/* An initiator rekeys on receiving so late that a last handshake still fits in. */
#define LAST_MINUTE_NS \
	(REJECT_AFTER_TIME_NS - KEEPALIVE_TIMEOUT_NS - REKEY_TIMEOUT_NS)
#define NEW_HANDSHAKE_NS		(KEEPALIVE_TIMEOUT_NS + REKEY_TIMEOUT_NS)
#define ZERO_KEYS_NS			(3 * REJECT_AFTER_TIME_NS)
#define MAX_TIMER_HANDSHAKES		18

#define COOKIE_SECRET_MAX_AGE_NS	(120 * NS_PER_SECOND)
/* The maker stops using a cookie this much before the checker forgets it. */
#define COOKIE_SECRET_LATENCY_NS	(5 * NS_PER_SECOND)

#define INITIATIONS_PER_SECOND		50
#define PACKETS_PER_SECOND		20
#define PACKETS_BURSTABLE		5
#define UNDER_LOAD_NS			NS_PER_SECOND
#define PADDING_MULTIPLE		16

/* Timestamps have no bits below this: they would tell the clock's drift. */
#define TIMESTAMP_STEP_NS		(UINT64_C(1) << 24)

#endif /* WT_WIREGUARD_CONSTANTS_H */
