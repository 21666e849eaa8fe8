/* Preloaded into QEMU 7.2, so that a COLO pair gets past its first checkpoint under -accel tcg. KVM needs none of it.
 *
 * What goes wrong: the migration thread saves the guest's memory without the big lock. TCG, unlike KVM, then
 * has work to do on a vCPU and waits for it with that lock as the condition's mutex. It neither holds the lock
 * nor, thanks to the wait, releases it: pthread_cond_wait hands a locked mutex back to a thread that never
 * unlocks it, and every other thread waits for ever.
 *
 * What helps: such a wait, on a mutex that the calling thread does not own, is made into a short one round which the
 * mutex is really taken and given back. All callers wait in a loop that looks at its condition again, so waking
 * up early costs them one more turn.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

typedef int wait_function(pthread_cond_t *, pthread_mutex_t *);
typedef int timed_function(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static const long TURN = 500000; /* nanoseconds */

/* The default version of these symbols; dlsym alone may give the one for binaries from before 2002. */
static const char VERSION[] = "GLIBC_2.3.2";

static int owns(pthread_mutex_t *mutex)
{
    static _Thread_local pid_t self;

    if (!self)
        self = gettid();
    return mutex->__data.__owner == self;
}

static struct timespec after_a_turn(void)
{
    struct timespec at;

    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += TURN;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_nsec -= 1000000000L;
        at.tv_sec++;
    }
    return at;
}

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    static wait_function *next_wait;
    static timed_function *next_timed;
    struct timespec at;

    if (!next_wait)
        next_wait = (wait_function *)dlvsym(RTLD_NEXT, "pthread_cond_wait", VERSION);
    if (owns(mutex))
        return next_wait(condition, mutex);
    if (!next_timed)
        next_timed = (timed_function *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", VERSION);
    pthread_mutex_lock(mutex);
    at = after_a_turn();
    next_timed(condition, mutex, &at);
    pthread_mutex_unlock(mutex);
    return 0;
}
