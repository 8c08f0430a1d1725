/*
 * barecurl.c
 *		A loop around libcurl's multi interface and nothing else: what the webhook
 *		benchmark is compared with.
 *
 * barecurl URL REQUESTS CONCURRENCY BODY-BYTES [CA-FILE]: posts, with the headers that msgsys sends, and
 * prints the seconds that it took.
 */
#include <curl/curl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

static int	epoll;
static long deadline = -1;
static CURLM *multi;

static long
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int
watch(CURL *easy, curl_socket_t socket, int what, void *arg, void *known)
{
	struct epoll_event event = {
		.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0),
		.data.fd = socket
	};

	(void) easy;
	(void) arg;
	if (what == CURL_POLL_REMOVE)
		epoll_ctl(epoll, EPOLL_CTL_DEL, socket, NULL);
	else
		epoll_ctl(epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event);
	curl_multi_assign(multi, socket, what == CURL_POLL_REMOVE ? NULL : (void *) 1);
	return 0;
}

static int
timer(CURLM *m, long timeout, void *arg)
{
	(void) m;
	(void) arg;
	deadline = timeout < 0 ? -1 : now_ms() + timeout;
	return 0;
}

static size_t
ignore(char *data, size_t size, size_t n, void *arg)
{
	(void) data;
	(void) arg;
	return size * n;
}

int
main(int argc, char **argv)
{
	long		requests = atol(argv[2]);
	int			concurrency = atoi(argv[3]);
	long		length = atol(argv[4]);
	long		started = 0;
	long		done = 0;
	char	   *body = malloc(length);
	struct curl_slist *headers = NULL;
	struct timespec begin;
	struct timespec end;
	int			running;

	memset(body, 'x', length);
	headers = curl_slist_append(headers, "Expect:");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, "User-Agent: bare");
	headers = curl_slist_append(headers, "webhook-id: 5ca99fe4-e0e7-493b-992f-c25d5ee18b48:100000");
	headers = curl_slist_append(headers, "webhook-timestamp: 1795274240");
	headers = curl_slist_append(headers, "webhook-signature: v1,EacEDllCPpfNyk4qlQUpHahEvMJpkBJlF2WGGIbsP/0=");
	curl_global_init(CURL_GLOBAL_ALL);
	multi = curl_multi_init();
	epoll = epoll_create1(0);
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) concurrency);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (; started < concurrency && started < requests; started++)
	{
		CURL	   *easy = curl_easy_init();

		curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, length);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore);
		if (argc > 5)
		{
			curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
			curl_easy_setopt(easy, CURLOPT_CAINFO, argv[5]);
		}
		curl_multi_add_handle(multi, easy);
	}
	while (done < requests)
	{
		struct epoll_event events[64];
		long		left = deadline < 0 ? 1000 : deadline - now_ms();
		int			n = epoll_wait(epoll, events, 64, left < 0 ? 0 : (int) left);
		CURLMsg    *message;

		for (int i = 0; i < n; i++)
			curl_multi_socket_action(multi, events[i].data.fd,
									 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
									 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
									 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), &running);
		if (deadline >= 0 && deadline <= now_ms())
		{
			deadline = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		while ((message = curl_multi_info_read(multi, &running)))
		{
			CURL	   *easy = message->easy_handle;

			if (message->data.result != CURLE_OK)
			{
				fprintf(stderr, "%s\n", curl_easy_strerror(message->data.result));
				return 1;
			}
			done++;
			curl_multi_remove_handle(multi, easy);
			if (started < requests)
			{
				curl_multi_add_handle(multi, easy);
				started++;
			}
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.3f\n", (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9);
	return 0;
}
