/*
 * ssrf.h
 *		Which addresses a webhook may be sent to.
 *
 * Pure functions: no name is resolved here.  The decision is on the address
 * that is actually connected to.
 */
#ifndef MSGSYS_SSRF_H
#define MSGSYS_SSRF_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

typedef struct SsrfAllow SsrfAllow;

/*
 * Read a list of networks: "10.1.0.0/16, ::1, 192.0.2.7"; an empty one is
 * right.  Returns NULL with words in err for one that is wrong.
 */
extern SsrfAllow *ssrf_allow_parse(const char *list, char *err, size_t errlen);
extern void ssrf_allow_free(SsrfAllow *allow);

/*
 * Whether an address may be connected to: only public unicast, or what allow
 * names.  Forbidden are private, loopback, link-local, CGNAT, metadata,
 * multicast, broadcast, unspecified, documentation and reserved networks, also
 * inside v4-mapped, v4-compatible, NAT64, 6to4 and Teredo addresses.  A v4-mapped
 * address is judged, and allowed, as the IPv4 address that it is.
 * *reason, if not NULL, is set to a word for why not ("private", "loopback").
 */
extern bool ssrf_permits(const SsrfAllow *allow, const struct sockaddr *address, const char **reason);

/*
 * Whether a URL may be stored as a webhook's: http or https, a host, no user
 * and password, no control character; a host that is a literal address, in any
 * spelling that inet_aton() takes, is judged by ssrf_permits().
 */
extern bool ssrf_check_url(const SsrfAllow *allow, const char *url, char *err, size_t errlen);

/*
 * Whether the path has no segment that leads elsewhere: "." or "..", as they are or
 * percent-encoded, also between encoded slashes, since servers decode before they look; and
 * whether the host is as it was written.  For a URL whose parts others have filled in.
 */
extern bool ssrf_check_path(const char *url, char *err, size_t errlen);

#endif							/* MSGSYS_SSRF_H */
