/*
 * resolver.c
 *		A resolver for tests, to be preloaded: names that end in .test are ours.
 *
 * forbidden.test is 127.0.0.2, both.test that and 127.0.0.1, hang.test takes 20 s, and rebind.test is
 * 127.0.0.1 when a process asks for the first time, and 127.0.0.2 from then on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

typedef int (*Resolve) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	static int	rebound = 0;
	Resolve		resolve = (Resolve) dlsym(RTLD_NEXT, "getaddrinfo");
	const char *address = name;
	int			error;

	if (name && strcmp(name, "hang.test") == 0)
		sleep(20);
	if (name && (strcmp(name, "forbidden.test") == 0 || strcmp(name, "both.test") == 0))
		address = "127.0.0.2";
	else if (name && strcmp(name, "rebind.test") == 0)
		address = rebound++ ? "127.0.0.2" : "127.0.0.1";
	error = resolve(address, service, hints, result);
	if (error == 0 && name && strcmp(name, "both.test") == 0)
	{
		struct addrinfo *last = *result;

		while (last->ai_next)
			last = last->ai_next;
		error = resolve("127.0.0.1", service, hints, &last->ai_next);
	}
	return error;
}
