/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for descriptors, and waking whoever waits. */
#ifndef WT_HOST_LOOP_H
#define WT_HOST_LOOP_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A wake is a descriptor that any thread makes readable and one thread waits
 * for: poll it, clear it, then look for work, in this order.
 */
int wake_open(int *wake);
void wake_close(int *wake);
/** wake_signal() - Make it readable; any thread, never blocks */
void wake_signal(int wake);
/** wake_clear() - Make it unreadable again; the waiting thread only */
void wake_clear(int wake);

#define LOOP_READABLE 1u
#define LOOP_WRITABLE 2u
#define LOOP_FAILED 4u

/**
 * struct loop_event - One descriptor that has something
 * @tag:	As given to loop_watch()
 * @flags:	LOOP_READABLE | LOOP_WRITABLE | LOOP_FAILED
 */
struct loop_event {
	uint32_t tag;
	uint32_t flags;
};

#define LOOP_EVENTS_MAX 8

/* An epoll set.  @tag is whatever the caller tells its descriptors apart by. */
int loop_open(int *loop);
void loop_close(int *loop);
int loop_watch(int loop, int fd, uint32_t tag, bool writable_too);
void loop_forget(int loop, int fd);

/**
 * loop_wait() - Wait until something is ready
 * @events:	Room for LOOP_EVENTS_MAX
 * @timeout_ns:	0 does not wait, negative waits for ever; rounded up to whole ms
 *
 * Return: how many were written to @events, 0 after the timeout or a signal,
 * -errno
 */
int loop_wait(int loop, struct loop_event *events, int64_t timeout_ns);

#endif /* WT_HOST_LOOP_H */
