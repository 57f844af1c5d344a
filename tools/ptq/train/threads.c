/* The threads of a trainer: each takes the next task that nobody has begun. */
#include <stdlib.h>

#include "train/units.h"

typedef struct worker {
    pool *from;
    int number;
} worker;

static int take_task(pool *p) { return p->task < p->tasks ? p->task++ : -1; }

/* Called with the lock held, which is given up during the work. */
static void work_off(pool *p, int thread) {
    int task;

    while ((task = take_task(p)) >= 0) {
        p->busy++;
        pthread_mutex_unlock(&p->lock);
        p->function(p->owner, task, thread);
        pthread_mutex_lock(&p->lock);
        p->busy--;
    }
    if (!p->busy)
        pthread_cond_broadcast(&p->end);
}

static void *worker_main(void *argument) {
    worker self = *(worker *)argument;
    pool *p = self.from;
    int round = 0;

    free(argument);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->round == round && !p->quit)
            pthread_cond_wait(&p->begin, &p->lock);
        if (p->quit)
            break;
        round = p->round;
        work_off(p, self.number);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void pool_run(trainer *t, task_function function, int tasks) {
    pool *p = &t->workers;

    pthread_mutex_lock(&p->lock);
    p->function = function;
    p->task = 0;
    p->tasks = tasks;
    p->round++;
    if (p->started)
        pthread_cond_broadcast(&p->begin);
    work_off(p, 0);
    while (p->busy || p->task < p->tasks)
        pthread_cond_wait(&p->end, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

ptq_status pool_start(trainer *t, int threads, ptq_error *err) {
    pool *p = &t->workers;

    p->owner = t;
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begin, NULL);
    pthread_cond_init(&p->end, NULL);
    p->thread = calloc((size_t)threads, sizeof *p->thread);
    if (!p->thread)
        return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d threads", threads);
    for (int i = 1; i < threads; i++) {
        worker *self = malloc(sizeof *self);

        if (!self)
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "no memory for %d threads", threads);
        self->from = p;
        self->number = i;
        if (pthread_create(&p->thread[i], NULL, worker_main, self)) {
            free(self);
            return ptq_error_set(err, PTQ_OUT_OF_MEMORY, "cannot start %d threads", threads);
        }
        p->started++;
    }
    return PTQ_OK;
}

void pool_stop(pool *p) {
    if (!p->threads)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = 1;
    pthread_cond_broadcast(&p->begin);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->thread[i], NULL);
    free(p->thread);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->begin);
    pthread_cond_destroy(&p->end);
}
