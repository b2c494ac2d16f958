/* SPDX-License-Identifier: Apache-2.0 */
/* The native thread, calls into it from other threads, and its helpers. */
#ifndef WT_HOST_THREAD_H
#define WT_HOST_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * struct thread - A thread that takes no signals
 * @id:		Valid while @running
 * @running:	Started and not joined
 */
struct thread {
	pthread_t id;
	bool running;
};

/** thread_start() - Run @main(@argument) on a thread of its own. Return: 0 or -errno */
int thread_start(struct thread *t, void (*main)(void *argument), void *argument);
void thread_join(struct thread *t);

/**
 * thread_prefer_latency() - Ask the scheduler to run the calling thread soon and briefly
 *
 * A thread that waits for packets competes with programs that compute.  Linux
 * 6.12 lets a thread trade a shorter slice for an earlier one; the share of the
 * CPU stays the same.  Older kernels ignore it.
 */
void thread_prefer_latency(void);

/**
 * DOC: Theory of operation - gate
 *
 * Other threads ask the thread that owns the data to do something by passing a
 * call through a gate: it lies on the caller's stack, is queued under the lock,
 * announced by a wake descriptor, run between two batches, and its caller is
 * woken.  The lock is held for a few pointer moves only, never while a call runs
 * and never together with another lock.  A closed gate refuses at once, also
 * what was waiting.
 */
struct gate_call {
	int (*run)(void *owner, void *argument);
	void *argument;
	int result;
	bool done;
	bool refused;
	struct gate_call *next;
};

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t done;
	struct gate_call *first;
	struct gate_call **last;
	int wake;
	bool is_open;
};

int gate_init(struct gate *g);
void gate_destroy(struct gate *g);

/** gate_open() - Accept calls from now on; the serving thread is about to run */
void gate_open(struct gate *g);

/**
 * gate_pass() - Have @run(owner, @argument) done by the serving thread and wait
 * @result:	What it returned
 *
 * Return: false if nobody serves, and nothing was done
 */
bool gate_pass(struct gate *g, int (*run)(void *owner, void *argument), void *argument,
	       int *result);

/** gate_serve() - Run what waits; the serving thread, after the wake was readable */
void gate_serve(struct gate *g, void *owner);

/** gate_close() - Refuse what waits and what comes; the serving thread, at its end */
void gate_close(struct gate *g);

/**
 * DOC: Theory of operation - workers
 *
 * Fork and join: workers_run() hands out part numbers 0..n-1 to whoever is free,
 * itself included, and returns when all parts are done.  Parts share nothing that
 * is written, so that nothing needs ordering.  With no helpers the caller does
 * all parts itself.
 */
#define WORKERS_MAX 15

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t finished;
	struct thread threads[WORKERS_MAX];
	unsigned int count;
	bool stopping;
	void (*run)(void *argument, unsigned int part);
	void *argument;
	unsigned int next;	/* part to hand out */
	unsigned int parts;
	unsigned int unfinished;
};

/** workers_start() - Start @count <= WORKERS_MAX helpers. Return: 0 or -errno */
int workers_start(struct workers *w, unsigned int count);
void workers_stop(struct workers *w);
void workers_run(struct workers *w, void (*run)(void *argument, unsigned int part),
		 void *argument, unsigned int parts);

#endif /* WT_HOST_THREAD_H */
