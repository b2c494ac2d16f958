/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX threads as the engine uses them; see thread.h. */
#define _GNU_SOURCE
#include "host/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/loop.h"

/* musl's default of 128 KiB is too small for message arrays plus crypto state. */
#define STACK_BYTES (256u * 1024u)
/* The shortest that the scheduler grants. */
#define SLICE_NS 100000u

struct start {
	void (*main)(void *argument);
	void *argument;
};

static void *enter(void *p)
{
	struct start s;

	memcpy(&s, p, sizeof(s));
	free(p);
	s.main(s.argument);
	return NULL;
}

int thread_start(struct thread *t, void (*main)(void *argument), void *argument)
{
	struct start *s = malloc(sizeof(*s));
	pthread_attr_t attributes;
	sigset_t all, before;
	int error;

	if (!s)
		return -ENOMEM;
	s->main = main;
	s->argument = argument;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	/* Signals are for the interpreter's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&t->id, &attributes, enter, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error) {
		free(s);
		return -error;
	}
	t->running = true;
	return 0;
}

/* struct sched_attr of linux/sched/types.h, first version; libcs lack it. */
struct scheduling {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime_ns;
	uint64_t deadline_ns;
	uint64_t period_ns;
};

void thread_prefer_latency(void)
{
#ifdef SYS_sched_setattr
	struct scheduling s = { .size = sizeof(s), .runtime_ns = SLICE_NS };

	/* SCHED_FLAG_KEEP_PARAMS would keep the slice too; so nice is read first. */
	errno = 0;
	s.nice = getpriority(PRIO_PROCESS, 0);
	if (errno == 0)
		syscall(SYS_sched_setattr, 0, &s, 0);
#endif
}

void thread_join(struct thread *t)
{
	if (!t->running)
		return;
	pthread_join(t->id, NULL);
	t->running = false;
}

int gate_init(struct gate *g)
{
	memset(g, 0, sizeof(*g));
	g->last = &g->first;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->done, NULL);
	return wake_open(&g->wake);
}

void gate_destroy(struct gate *g)
{
	wake_close(&g->wake);
	pthread_cond_destroy(&g->done);
	pthread_mutex_destroy(&g->lock);
}

void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->is_open = true;
	pthread_mutex_unlock(&g->lock);
}

bool gate_pass(struct gate *g, int (*run)(void *owner, void *argument), void *argument,
	       int *result)
{
	struct gate_call call = { .run = run, .argument = argument };

	pthread_mutex_lock(&g->lock);
	if (!g->is_open) {
		pthread_mutex_unlock(&g->lock);
		return false;
	}
	*g->last = &call;
	g->last = &call.next;
	wake_signal(g->wake);
	while (!call.done)
		pthread_cond_wait(&g->done, &g->lock);
	pthread_mutex_unlock(&g->lock);
	*result = call.result;
	return !call.refused;
}

static struct gate_call *take(struct gate *g)
{
	struct gate_call *call = g->first;

	if (call) {
		g->first = call->next;
		if (!g->first)
			g->last = &g->first;
	}
	return call;
}

void gate_serve(struct gate *g, void *owner)
{
	struct gate_call *call;

	wake_clear(g->wake);
	pthread_mutex_lock(&g->lock);
	while ((call = take(g)) != NULL) {
		pthread_mutex_unlock(&g->lock);
		call->result = call->run(owner, call->argument);
		pthread_mutex_lock(&g->lock);
		call->done = true;
		pthread_cond_broadcast(&g->done);
	}
	pthread_mutex_unlock(&g->lock);
}

void gate_close(struct gate *g)
{
	struct gate_call *call;

	pthread_mutex_lock(&g->lock);
	g->is_open = false;
	while ((call = take(g)) != NULL) {
		call->refused = true;
		call->done = true;
	}
	pthread_cond_broadcast(&g->done);
	pthread_mutex_unlock(&g->lock);
}

/* Do parts until none is left to hand out; called and left with the lock held. */
static void do_parts(struct workers *w)
{
	while (w->next < w->parts) {
		unsigned int part = w->next++;

		pthread_mutex_unlock(&w->lock);
		w->run(w->argument, part);
		pthread_mutex_lock(&w->lock);
		if (--w->unfinished == 0)
			pthread_cond_signal(&w->finished);
	}
}

static void worker_main(void *argument)
{
	struct workers *w = argument;

	pthread_mutex_lock(&w->lock);
	while (!w->stopping) {
		do_parts(w);
		if (!w->stopping)
			pthread_cond_wait(&w->work, &w->lock);
	}
	pthread_mutex_unlock(&w->lock);
}

int workers_start(struct workers *w, unsigned int count)
{
	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->finished, NULL);
	while (w->count < count && w->count < WORKERS_MAX) {
		int error = thread_start(&w->threads[w->count], worker_main, w);

		if (error) {
			workers_stop(w);
			return error;
		}
		w->count++;
	}
	return 0;
}

void workers_stop(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned int i = 0; i < w->count; i++)
		thread_join(&w->threads[i]);
	w->count = 0;
	pthread_cond_destroy(&w->finished);
	pthread_cond_destroy(&w->work);
	pthread_mutex_destroy(&w->lock);
}

void workers_run(struct workers *w, void (*run)(void *argument, unsigned int part),
		 void *argument, unsigned int parts)
{
	if (w->count == 0 || parts < 2) {
		for (unsigned int i = 0; i < parts; i++)
			run(argument, i);
		return;
	}
	pthread_mutex_lock(&w->lock);
	w->run = run;
	w->argument = argument;
	w->next = 0;
	w->parts = parts;
	w->unfinished = parts;
	pthread_cond_broadcast(&w->work);
	do_parts(w);
	while (w->unfinished)
		pthread_cond_wait(&w->finished, &w->lock);
	pthread_mutex_unlock(&w->lock);
}
