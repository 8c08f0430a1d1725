/*
 * reactor.h
 *		One epoll descriptor for all the sockets and pipes of a worker.
 *
 * A WaitEventSet can only grow, so it holds the reactor's descriptor instead of
 * those that come and go.  Plain C: callbacks run inside reactor_dispatch() and
 * must not raise.
 */
#ifndef MSGSYS_REACTOR_H
#define MSGSYS_REACTOR_H

#include <stdint.h>

typedef struct Reactor Reactor;
typedef void (*ReactorCallback) (int fd, uint32_t events, void *arg);

/* A new reactor, or NULL with errno set. */
extern Reactor *reactor_open(void);

/* Free a reactor; what it watches is not closed.  NULL is allowed. */
extern void reactor_close(Reactor *reactor);

/* The descriptor that is readable when there is something to dispatch. */
extern int	reactor_fd(const Reactor *reactor);

/*
 * Watch fd for events (EPOLLIN, EPOLLOUT; level triggered), or change what it
 * is watched for.  Returns 0, or -1 with errno set.
 */
extern int	reactor_watch(Reactor *reactor, int fd, uint32_t events,
						  ReactorCallback callback, void *arg);

/* Watch fd no longer; to be called before it is closed. */
extern void reactor_forget(Reactor *reactor, int fd);

/* Call back for all that is ready now; does not block.  Returns how many. */
extern int	reactor_dispatch(Reactor *reactor);

#endif							/* MSGSYS_REACTOR_H */
