/*
 * answer.c
 *		Fuzzes what endpoints answer: status, headers, Retry-After, body, redirects
 *		(src/http_client.c, and libcurl behind it).
 *
 * A request, and then another one, is made to a server in this program, which answers each connection with the next part
 * of the input (FF FF stands between them) and closes it.  Names are looked up, and connections
 * made, by functions of this file: whatever a redirect leads to, all traffic stays here.  What is
 * connected to must be permitted, what is secret must stay with its origin, and the
 * result must be within its bounds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "http_client.h"
#include "ssrf.h"

#include "fuzz.h"

extern int	fuzz_answer(const uint8_t *data, size_t size);

#define ALLOWED		"127.0.0.0/30"
#define SECRET		"hunter2hunter2"
#define REDIRECTS	3
#define LONGEST		(32 * 1024)

static int	listener = -1;
static struct sockaddr_in here;
static int	connections;		/* tried, by the request under way */
static char origin[64];			/* host:port of the request */

/* ---------- what libcurl finds in place of the C library's ---------- */

/* Every name has an address, by its first letter a public one, one that is allowed, or one that is not. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
	struct
	{
		struct addrinfo info;
		struct sockaddr_in address;
	}		   *result = calloc(1, sizeof(*result));
	char		first = node ? node[0] : '\0';

	(void) hints;
	if (result == NULL || first == 'n')
	{
		free(result);
		return EAI_NONAME;
	}
	result->address.sin_family = AF_INET;
	result->address.sin_port = htons((uint16_t) (service ? atoi(service) : 0));
	if (node == NULL || inet_pton(AF_INET, node, &result->address.sin_addr) != 1)
		inet_pton(AF_INET, first == 'p' ? "93.184.216.34" : first == 'a' ? "127.0.0.2" : "10.0.0.1", &result->address.sin_addr);
	result->info.ai_family = AF_INET;
	result->info.ai_socktype = SOCK_STREAM;
	result->info.ai_protocol = IPPROTO_TCP;
	result->info.ai_addrlen = sizeof(result->address);
	result->info.ai_addr = (struct sockaddr *) &result->address;
	*found = &result->info;
	return 0;
}

void
freeaddrinfo(struct addrinfo *info)
{
	free(info);
}

/* Judge what is connected to, and connect to our server. */
int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
	char		err[200];
	SsrfAllow  *allow;

	if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
		return (int) syscall(SYS_connect, fd, address, length);
	allow = ssrf_allow_parse(ALLOWED, err, sizeof(err));
	PROPERTY(ssrf_permits(allow, address, NULL));
	ssrf_allow_free(allow);
	connections++;
	if (address->sa_family == AF_INET6)
	{
		errno = ECONNREFUSED;
		return -1;
	}
	return (int) syscall(SYS_connect, fd, &here, sizeof(here));
}

/* ---------- the server ---------- */

static void
listen_here(void)
{
	socklen_t	length = sizeof(here);

	here.sin_family = AF_INET;
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *) &here, sizeof(here)) != 0 || listen(listener, 64) != 0 ||
		getsockname(listener, (struct sockaddr *) &here, &length) != 0)
		abort();
	snprintf(origin, sizeof(origin), "127.0.0.1:%d", ntohs(here.sin_port));
}

/* What is secret goes to nobody but the origin. */
static void
check_request(char *request, size_t length)
{
	char	   *host;

	request[length] = '\0';
	host = strcasestr(request, "\r\nhost: ");
	if (host == NULL)
		return;					/* not a request of HTTP: TLS */
	host += strlen("\r\nhost: ");
	if (strncmp(host, origin, strlen(origin)) != 0 || host[strlen(origin)] != '\r')
		PROPERTY(strstr(request, SECRET) == NULL);
}

/* Answer a connection that has come; true: one has. */
static bool
serve(FuzzInput *input)
{
	int			fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct pollfd readable = {.fd = fd,.events = POLLIN};
	char		request[8192];
	ssize_t		n = 0;
	const uint8_t *begin = input->at;
	const uint8_t *end;

	if (fd < 0)
		return false;
	if (poll(&readable, 1, 0) > 0)
		n = recv(fd, request, sizeof(request) - 1, MSG_DONTWAIT);
	if (n > 0)
		check_request(request, (size_t) n);
	end = memmem(begin, (size_t) (input->end - begin), "\xff\xff", 2);
	input->at = end ? end + 2 : input->end;
	if (end == NULL)
		end = input->end;
	(void) !send(fd, begin, (size_t) (end - begin), MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	/* what is not read would reset the connection, and take the answer with it */
	while (recv(fd, request, sizeof(request), MSG_DONTWAIT) > 0)
		;
	close(fd);
	return true;
}

/* ---------- the client ---------- */

static void
check_result(const HttpResult *result, int followed)
{
	PROPERTY(result->outcome >= HTTP_ANSWERED && result->outcome <= HTTP_BROKEN);
	PROPERTY(result->body_length <= HTTP_ANSWER_MAX && result->body[result->body_length] == '\0');
	PROPERTY(!result->cut || result->body_length == HTTP_ANSWER_MAX);
	PROPERTY(result->retry_after_s == -1 || result->retry_after_s > 0);
	PROPERTY(memchr(result->error, '\0', sizeof(result->error)) && memchr(result->content_type, '\0', sizeof(result->content_type)) &&
			 memchr(result->address, '\0', sizeof(result->address)));
	PROPERTY((result->outcome == HTTP_ANSWERED) == (result->error[0] == '\0'));
	PROPERTY(result->outcome != HTTP_ANSWERED || (result->status >= 200 && result->status <= 999));
	PROPERTY(result->elapsed_ms >= 0);
	PROPERTY(followed <= 1 + REDIRECTS);
}

/* Make the request, and wait for its result. */
static void
call(HttpClient *client, Reactor *reactor, FuzzInput *input)
{
	char		url[100];
	char		err[256];
	HttpHeader	headers[] = {{"Content-Type", "text/plain"}, {"Authorization", SECRET}, {"X-Key", SECRET}, {"webhook-id", "1"}};
	HttpRequest request = {.method = "POST",.url = url,.headers = headers,.nheaders = 4,.body = "body",.body_length = 4,
	.connect_timeout_ms = 500,.timeout_ms = 1000,.redirects = REDIRECTS};
	HttpResult	result;
	HttpOutcome fault;

	snprintf(url, sizeof(url), "http://%s/path", origin);
	connections = 0;
	PROPERTY(http_start(client, &request, &fault, err, sizeof(err)));
	while (http_results(client, &result, 1) == 0)
	{
		struct pollfd ready[] = {{.fd = reactor_fd(reactor),.events = POLLIN}, {.fd = listener,.events = POLLIN}};
		long		timeout = http_timeout(client);

		poll(ready, 2, timeout < 0 || timeout > 50 ? 50 : (int) timeout);
		/* the client first, so that its request is there when it is answered */
		reactor_dispatch(reactor);
		http_tick(client);
		if (ready[1].revents)
		{
			reactor_dispatch(reactor);
			while (serve(input))
				;
		}
	}
	check_result(&result, connections);
	/* the handle is free for another request */
	PROPERTY(http_results(client, &result, 0) == 0 && http_pending(client) == 0);
}

int
fuzz_answer(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	char		err[256];
	HttpClientConfig config = {.max_connections = 4,.allow = ALLOWED};
	HttpClient *client;

	/* who knows the secret may say where it is to be sent */
	if (size > LONGEST || memmem(data, size, SECRET, strlen(SECRET)))
		return 0;
	if (listener < 0)
		listen_here();
	config.reactor = reactor_open();
	client = http_open(&config, err, sizeof(err));
	if (client == NULL)
		abort();
	call(client, config.reactor, &input);
	/* once more, by the same handle, and perhaps the same connection */
	if (input.at < input.end)
		call(client, config.reactor, &input);
	http_close(client);
	reactor_close(config.reactor);
	while (serve(&input))
		;
	return 0;
}
