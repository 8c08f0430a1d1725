/*
 * c11_threads.c
 *		C11's threads by POSIX's, for threads_unit: librdkafka uses those of C11, which
 *		ThreadSanitizer does not know: code of ours would crash in such a thread, and what a
 *		lock orders would seem a race.  They stand before libc's, which has the same types.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>

typedef struct Start
{
	thrd_start_t main;
	void	   *arg;
} Start;

static void *
run(void *arg)
{
	Start		start = *(Start *) arg;

	free(arg);
	return (void *) (long) start.main(start.arg);
}

static int
answer(int error)
{
	return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : error == EBUSY ? thrd_busy : thrd_error;
}

int
thrd_create(thrd_t *thread, thrd_start_t main, void *arg)
{
	Start	   *start = malloc(sizeof(Start));

	*start = (Start)
	{
		main, arg
	};
	return answer(pthread_create((pthread_t *) thread, NULL, run, start));
}

int
thrd_join(thrd_t thread, int *result)
{
	void	   *value;
	int			error = pthread_join(thread, &value);

	if (result)
		*result = (int) (long) value;
	return answer(error);
}

int
thrd_detach(thrd_t thread)
{
	return answer(pthread_detach(thread));
}

int
mtx_init(mtx_t *lock, int type)
{
	pthread_mutexattr_t attr;
	int			error;

	pthread_mutexattr_init(&attr);
	if (type & mtx_recursive)
		pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	error = pthread_mutex_init((pthread_mutex_t *) lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return answer(error);
}

int
mtx_lock(mtx_t *lock)
{
	return answer(pthread_mutex_lock((pthread_mutex_t *) lock));
}

int
mtx_trylock(mtx_t *lock)
{
	return answer(pthread_mutex_trylock((pthread_mutex_t *) lock));
}

int
mtx_unlock(mtx_t *lock)
{
	return answer(pthread_mutex_unlock((pthread_mutex_t *) lock));
}

void
mtx_destroy(mtx_t *lock)
{
	pthread_mutex_destroy((pthread_mutex_t *) lock);
}

int
cnd_init(cnd_t *change)
{
	return answer(pthread_cond_init((pthread_cond_t *) change, NULL));
}

int
cnd_signal(cnd_t *change)
{
	return answer(pthread_cond_signal((pthread_cond_t *) change));
}

int
cnd_broadcast(cnd_t *change)
{
	return answer(pthread_cond_broadcast((pthread_cond_t *) change));
}

int
cnd_wait(cnd_t *change, mtx_t *lock)
{
	return answer(pthread_cond_wait((pthread_cond_t *) change, (pthread_mutex_t *) lock));
}

int
cnd_timedwait(cnd_t *restrict change, mtx_t *restrict lock, const struct timespec *restrict until)
{
	return answer(pthread_cond_timedwait((pthread_cond_t *) change, (pthread_mutex_t *) lock, until));
}

void
cnd_destroy(cnd_t *change)
{
	pthread_cond_destroy((pthread_cond_t *) change);
}
