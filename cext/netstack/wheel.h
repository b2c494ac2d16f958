/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of all flows: a hierarchical wheel with a tick of one millisecond. */
#ifndef WT_NETSTACK_WHEEL_H
#define WT_NETSTACK_WHEEL_H

#include <stdint.h>

/**
 * DOC: Theory of operation - timer wheel
 *
 * One timer per flow, known by a number below @timers.  Four levels of 64
 * slots; level L has slots of 64^L ms, so the wheel spans 4.6 hours, and what
 * is due later waits in the last slot and is put back when that comes up.
 *
 *	arm	unlink, choose level by distance, link into the slot; O(1)
 *	cancel	unlink; O(1)
 *	pop	next timer that is due; slots that the time passes are emptied
 *		downwards; amortised O(levels) per timer
 *	next	first occupied slot, from one bitmap per level; may be early (the
 *		start of a coarse slot), never late
 *
 * A timer never fires before its tick.  Time never goes back: an arm in the
 * past is due at once.
 */
#define WHEEL_LEVELS	4
#define WHEEL_BITS	6
#define WHEEL_SLOTS	(1 << WHEEL_BITS)
#define WHEEL_IDLE	0xffffffffu
#define WHEEL_NEVER	UINT64_MAX

/**
 * struct wheel_timer - One timer
 * @next, @prev:	Ring of its slot; heads are numbered from wheel.timers up
 * @slot:		level * 64 + slot, or WHEEL_IDLE
 * @due_ms:		Low 32 bits of its tick
 */
struct wheel_timer {
	uint32_t next;
	uint32_t prev;
	uint32_t slot;
	uint32_t due_ms;
};

/**
 * struct wheel - All timers
 * @now_ms:	Everything due before it has been popped
 * @timers:	How many there are; behind them stand the slots' heads
 * @armed:	How many of them are in a slot
 * @occupied:	Bitmap of nonempty slots, by level
 * @timer:	timers + WHEEL_LEVELS * WHEEL_SLOTS entries
 */
struct wheel {
	uint64_t now_ms;
	uint32_t timers;
	uint32_t armed;
	uint64_t occupied[WHEEL_LEVELS];
	struct wheel_timer *timer;
};

#endif /* WT_NETSTACK_WHEEL_H */
