# SPDX-License-Identifier: Apache-2.0

cdef extern from "host/thread.h" nogil:
    enum:
        WORKERS_MAX

    struct thread:
        bint running

    struct gate:
        int wake

    struct workers:
        unsigned int count

    int thread_start(thread *t, void (*main)(void *argument) noexcept nogil, void *argument)
    void thread_join(thread *t)
    void thread_prefer_latency()
    int gate_init(gate *g)
    void gate_destroy(gate *g)
    void gate_open(gate *g)
    bint gate_pass(gate *g, int (*run)(void *owner, void *argument) noexcept nogil,
                   void *argument, int *result)
    void gate_serve(gate *g, void *owner)
    void gate_close(gate *g)
    int workers_start(workers *w, unsigned int count)
    void workers_stop(workers *w)
    void workers_run(workers *w, void (*run)(void *argument, unsigned int part) noexcept nogil,
                     void *argument, unsigned int parts)
