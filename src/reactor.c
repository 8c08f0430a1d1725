/*
 * reactor.c
 *		One epoll descriptor for all the sockets and pipes of a worker.
 */
#include "reactor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define DISPATCH_MAX	64

typedef struct Watch
{
	ReactorCallback callback;	/* NULL: not watched */
	void	   *arg;
} Watch;

struct Reactor
{
	int			epoll;
	Watch	   *watches;		/* by descriptor */
	int			nwatches;
};

Reactor *
reactor_open(void)
{
	Reactor    *reactor = calloc(1, sizeof(Reactor));

	if (reactor == NULL)
		return NULL;
	reactor->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (reactor->epoll < 0)
	{
		free(reactor);
		return NULL;
	}
	return reactor;
}

void
reactor_close(Reactor *reactor)
{
	if (reactor == NULL)
		return;
	close(reactor->epoll);
	free(reactor->watches);
	free(reactor);
}

int
reactor_fd(const Reactor *reactor)
{
	return reactor->epoll;
}

int
reactor_watch(Reactor *reactor, int fd, uint32_t events,
			  ReactorCallback callback, void *arg)
{
	struct epoll_event event = {.events = events,.data.fd = fd};
	int			operation;

	if (fd >= reactor->nwatches)
	{
		int			n = fd * 2 + 16;
		Watch	   *grown = realloc(reactor->watches, n * sizeof(Watch));

		if (grown == NULL)
			return -1;
		memset(grown + reactor->nwatches, 0,
			   (n - reactor->nwatches) * sizeof(Watch));
		reactor->watches = grown;
		reactor->nwatches = n;
	}
	operation = reactor->watches[fd].callback ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (epoll_ctl(reactor->epoll, operation, fd, &event) < 0)
		return -1;
	reactor->watches[fd].callback = callback;
	reactor->watches[fd].arg = arg;
	return 0;
}

void
reactor_forget(Reactor *reactor, int fd)
{
	if (fd < 0 || fd >= reactor->nwatches || reactor->watches[fd].callback == NULL)
		return;
	epoll_ctl(reactor->epoll, EPOLL_CTL_DEL, fd, NULL);
	reactor->watches[fd].callback = NULL;
}

int
reactor_dispatch(Reactor *reactor)
{
	struct epoll_event events[DISPATCH_MAX];
	int			n = epoll_wait(reactor->epoll, events, DISPATCH_MAX, 0);

	for (int i = 0; i < n; i++)
	{
		int			fd = events[i].data.fd;

		/* a callback before this one may have taken it out */
		if (fd < reactor->nwatches && reactor->watches[fd].callback)
			reactor->watches[fd].callback(fd, events[i].events,
										  reactor->watches[fd].arg);
	}
	return n < 0 ? 0 : n;
}
