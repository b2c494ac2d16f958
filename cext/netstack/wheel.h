/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of all flows: a hierarchical wheel with a tick of one millisecond. */
#ifndef WT_NETSTACK_WHEEL_H
#define WT_NETSTACK_WHEEL_H

#include <stdint.h>

/**
 * DOC: Theory of operation - timer wheel
 *
 * One timer per flow, known by a number below @timers.  Eight levels of 64 slots:
 * 48 bits of milliseconds, more than the nanoseconds of a 64-bit clock hold.
 * The level of a timer is that of the highest six-bit digit in which its tick
 * differs from the present one, the slot is that digit of its tick.  So every
 * slot in use lies ahead of the present on its level, nothing ever laps, and
 * the lowest level in use holds what is due first.
 *
 *	arm	unlink, find the level by one count of leading zeros, link; O(1)
 *	cancel	unlink; O(1)
 *	pop	a timer that is due; when the time reaches a slot of a coarse level
 *		its timers are dealt to the levels below; O(levels) per timer
 *	next	start of the first slot in use, from one bitmap per level; may be
 *		early (a coarse slot), never late
 *
 * A timer never fires before its tick.  Time never goes back: an arm in the
 * past is due at once; one more than 24 days ahead is due after 24 days.
 */
#define WHEEL_LEVELS	8
#define WHEEL_BITS	6
#define WHEEL_SLOTS	(1 << WHEEL_BITS)
#define WHEEL_FARTHEST_MS 0x7fffffffu
#define WHEEL_NEVER	UINT64_MAX

/**
 * struct wheel_timer - One timer
 * @next, @prev:	Ring of its slot; heads are numbered from wheel.timers up
 * @slot:		level * 64 + slot + 1; 0 at rest, so that timers never armed
 *			are pages never touched
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
 * @now_ms:	The present tick; everything due before it has been popped
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
