/*
 * webhook_unit.c
 *		Tests of ssrf.c and signature.c alone.
 *
 * Needs no PostgreSQL; test/tools/Makefile builds it.  Prints TAP; the exit
 * status is 1 if a test failed.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "backoff.h"
#include "breaker.h"
#include "signature.h"
#include "ssrf.h"
#include "tap.h"

#define lengthof(array)		((int) (sizeof(array) / sizeof((array)[0])))

/* ---------- ssrf.c ---------- */

/* Judge an address in its usual spelling; returns "" if it is permitted. */
static const char *
judge(const SsrfAllow *allow, const char *text)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};
	const struct sockaddr *address = (struct sockaddr *) &four;
	const char *reason = "?";

	if (inet_pton(AF_INET, text, &four.sin_addr) != 1)
	{
		address = (struct sockaddr *) &six;
		if (inet_pton(AF_INET6, text, &six.sin6_addr) != 1)
			return "unreadable";
	}
	if (ssrf_permits(allow, address, NULL) != ssrf_permits(allow, address, &reason))
		return "undecided";
	return reason ? reason : "";
}

static void
test_addresses(void)
{
	static const struct
	{
		const char *address;
		const char *reason;		/* "": public */
	}			cases[] = {
		{"8.8.8.8", ""}, {"1.1.1.1", ""}, {"126.255.255.255", ""}, {"128.0.0.0", ""},
		{"9.255.255.255", ""}, {"11.0.0.0", ""}, {"172.15.255.255", ""}, {"172.32.0.0", ""},
		{"192.167.255.255", ""}, {"192.169.0.0", ""}, {"100.63.255.255", ""}, {"100.128.0.0", ""},
		{"169.253.255.255", ""}, {"169.255.0.0", ""}, {"198.17.255.255", ""}, {"198.20.0.0", ""},
		{"223.255.255.255", ""}, {"1.0.0.0", ""}, {"168.63.129.17", ""},
		{"0.0.0.0", "unspecified"}, {"0.1.2.3", "unspecified"},
		{"10.0.0.0", "private"}, {"10.255.255.255", "private"},
		{"172.16.0.1", "private"}, {"172.31.255.255", "private"},
		{"192.168.0.1", "private"}, {"192.168.255.255", "private"},
		{"100.64.0.0", "shared"}, {"100.127.255.255", "shared"},
		{"127.0.0.1", "loopback"}, {"127.255.255.254", "loopback"},
		{"169.254.0.1", "link-local"}, {"169.254.169.254", "metadata"},
		{"169.254.170.2", "metadata"}, {"100.100.100.200", "metadata"},
		{"168.63.129.16", "metadata"}, {"192.0.0.192", "metadata"},
		{"192.0.0.1", "reserved"}, {"192.88.99.1", "reserved"}, {"240.0.0.1", "reserved"},
		{"192.0.2.7", "documentation"}, {"198.51.100.7", "documentation"},
		{"203.0.113.7", "documentation"}, {"198.18.0.1", "benchmarking"},
		{"198.19.255.255", "benchmarking"}, {"224.0.0.1", "multicast"},
		{"239.255.255.255", "multicast"}, {"255.255.255.255", "broadcast"},
		{"2606:4700:4700::1111", ""}, {"2a00:1450:4001::1", ""}, {"2001:4860:4860::8888", ""},
		{"::", "unspecified"}, {"::1", "loopback"}, {"::2", "reserved"},
		{"::ffff:127.0.0.1", "loopback"}, {"::ffff:10.1.2.3", "private"},
		{"::ffff:8.8.8.8", ""}, {"::ffff:169.254.169.254", "metadata"},
		{"::127.0.0.1", "reserved"}, {"::8.8.8.8", "reserved"},
		{"::ffff:0:127.0.0.1", "reserved"},
		{"64:ff9b::8.8.8.8", ""}, {"64:ff9b::127.0.0.1", "loopback"},
		{"64:ff9b::169.254.169.254", "metadata"}, {"64:ff9b:1::8.8.8.8", "reserved"},
		{"2002:0808:0808::1", ""}, {"2002:7f00:1::1", "loopback"}, {"2002:a00:1::", "private"},
		{"2001:0:808:808:0:0:f7f7:f7f7", ""},	/* Teredo: ~8.8.8.8 */
		{"2001:0:808:808:0:0:80ff:fffe", "loopback"},	/* ~127.0.0.1 */
		{"2001:0:a00:1:0:0:f7f7:f7f7", "private"},
		{"2001:2::1", "reserved"}, {"2001:20::1", "reserved"}, {"2001:1ff::1", "reserved"},
		{"2001:200::1", ""}, {"2001:db8::1", "documentation"}, {"3fff:123::1", "documentation"},
		{"3fff:1000::1", ""}, {"fc00::1", "private"}, {"fd12::1", "private"},
		{"fd00:ec2::254", "metadata"}, {"fd20:ce::254", "metadata"}, {"fe80::1", "link-local"},
		{"febf::1", "link-local"}, {"fec0::1", "private"}, {"ff02::1", "multicast"},
		{"100::1", "reserved"}, {"4000::1", "reserved"}, {"5f00::1", "reserved"},
		{"1fff::1", "reserved"}, {"2000::1", ""}
	};
	struct sockaddr other = {.sa_family = AF_UNIX};
	SsrfAllow  *allow = ssrf_allow_parse("", NULL, 0);
	int			wrong = 0;

	ok(allow, "an empty list of exceptions is right");
	for (int i = 0; i < lengthof(cases); i++)
	{
		const char *with = judge(allow, cases[i].address);

		if (strcmp(judge(NULL, cases[i].address), cases[i].reason) == 0 &&
			strcmp(with, cases[i].reason) == 0)
			continue;
		wrong++;
		diag("%s is \"%s\", not \"%s\"", cases[i].address, with, cases[i].reason);
	}
	ok(wrong == 0, "%d addresses are judged right", lengthof(cases));
	ok(!ssrf_permits(allow, &other, NULL), "a socket in the file system is forbidden");
	ssrf_allow_free(allow);
}

static void
test_exceptions(void)
{
	static const char *const wrong[] = {
		"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0", "name", "::1/129", "/8",
		"::ffff:0.0.0.0/90", "10.0.0.1/8", "::1/64", "10.0.0.0/0008", "10.0.0.1;10.0.0.2",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000"
	};
	char		err[200] = "";
	SsrfAllow  *allow = ssrf_allow_parse(" 10.1.0.0/16, ::1,192.0.2.7\t169.254.169.254/32,\n"
										 "::ffff:172.16.0.0/108 fd00::/8,,", err, sizeof(err));
	int			accepted = 0;

	if (!ok(allow, "a list of exceptions %s", err))
		return;
	ok(!*judge(allow, "10.1.255.255") && *judge(allow, "10.2.0.0") && *judge(allow, "10.0.255.255"),
	   "a network opens what is in it, and no more");
	ok(!*judge(allow, "::ffff:10.1.0.1") && *judge(allow, "::ffff:10.2.0.1"),
	   "a v4-mapped address is allowed as the IPv4 address that it is");
	ok(!*judge(allow, "172.31.0.1") && !*judge(allow, "::ffff:172.16.0.1") && *judge(allow, "172.32.0.1") == '\0',
	   "a v4-mapped network too");
	ok(!*judge(allow, "::1") && *judge(allow, "::") && *judge(allow, "127.0.0.1"), "one address");
	ok(!*judge(allow, "192.0.2.7") && *judge(allow, "192.0.2.8"), "another");
	ok(!*judge(allow, "169.254.169.254") && !*judge(allow, "fdff::1") && !*judge(allow, "fd00:ec2::254"),
	   "whoever names a metadata address gets it");
	ok(*judge(allow, "64:ff9b::10.1.0.1") && *judge(allow, "2002:a01:1::1"),
	   "what is allowed is not allowed through a tunnel");
	ssrf_allow_free(allow);

	allow = ssrf_allow_parse("0.0.0.0/0 ::/0", NULL, 0);
	ok(allow && !*judge(allow, "127.0.0.1") && !*judge(allow, "ff02::1"), "everything");
	ssrf_allow_free(allow);
	ssrf_allow_free(ssrf_allow_parse(NULL, NULL, 0));
	for (int i = 0; i < lengthof(wrong); i++)
	{
		allow = ssrf_allow_parse(wrong[i], err, sizeof(err));
		if (allow || !*err)
			diag("accepted: %s", wrong[i]), accepted++;
		ssrf_allow_free(allow);
	}
	ok(accepted == 0, "%d wrong lists are refused: %s", lengthof(wrong), err);
}

static void
test_urls(void)
{
	static const char *const right[] = {
		"http://example.com", "https://example.com/", "HTTPS://EXAMPLE.com:8443/a?b=c#d",
		"http://8.8.8.8/", "http://[2606:4700:4700::1111]:80/x", "http://example.com?q",
		"http://example.com:/", "https://xn--bcher-kva.example/", "https://b\xc3\xbc" "cher.example/",
		"http://a_b.example/", "http://example.com/@b", "http://example.com/?u=http://127.0.0.1/",
		"http://[::ffff:8.8.8.8]/", "http://example.com./", "http://1.2.3.4.5/", "http://134744072/"
	};
	static const char *const bad[] = {
		"", "example.com", "ftp://example.com/", "file:///etc/passwd", "http:/example.com/",
		"http:///example.com", "http://", "https://?", "http://:80/", "http://user@example.com/",
		"http://user:secret@example.com/", "http://@example.com/", "http://a b/", "http://a/\n",
		"http://a/\x7f", "http://a/b c", "http://a\\@b/", "http://a:0/", "http://a:65536/",
		"http://a:8x/", "http://127%2e0.0.1/", "http://[::1%25lo]/", "http://[::1", "http://[::1]x/",
		"http://[]/", "http://[127.0.0.1]/", "gopher://a/", "http://./", "http://a/\r\nX: y",
		"http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://127.1/",
		"http://0177.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/",
		"http://localhost/", "http://LocalHost:80/", "http://x.localhost/", "http://127.0.0.1./",
		"http://localhost./", "http://0x7f000001/", "http://017700000001/", "http://10.0.0.1/",
		"http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://[64:ff9b::7f00:1]/",
		"http://127.0.0.1:80#@example.com/", "http://[::]/", "http://0.0.0.0"
	};
	char		longer[400];
	char		err[200] = "";
	SsrfAllow  *allow;
	int			wrong = 0;

	for (int i = 0; i < lengthof(right); i++)
		if (!ssrf_check_url(NULL, right[i], err, sizeof(err)))
			diag("%s: %s", right[i], err), wrong++;
	ok(wrong == 0, "%d URLs are right", lengthof(right));
	for (int i = 0; i < lengthof(bad); i++)
	{
		err[0] = '\0';
		if (ssrf_check_url(NULL, bad[i], err, sizeof(err)) || !*err)
			diag("accepted: %s", bad[i]), wrong++;
		else if (strstr(err, "secret"))
			diag("shown: %s", err), wrong++;
	}
	ok(wrong == 0, "%d URLs are refused", lengthof(bad));
	snprintf(longer, sizeof(longer), "http://%0300d/", 1);
	ok(!ssrf_check_url(NULL, longer, err, sizeof(err)), "a host of 300 letters: %s", err);

	allow = ssrf_allow_parse("127.0.0.0/8", NULL, 0);
	ok(ssrf_check_url(allow, "http://127.0.0.1:8080/", err, sizeof(err)) &&
	   ssrf_check_url(allow, "http://0x7f.1/", err, sizeof(err)) &&
	   ssrf_check_url(allow, "http://localhost/", err, sizeof(err)) &&
	   !ssrf_check_url(allow, "http://[::1]/", err, sizeof(err)) &&
	   !ssrf_check_url(allow, "http://10.0.0.1/", err, sizeof(err)), "exceptions count: %s", err);
	ssrf_allow_free(allow);
}

/* ---------- signature.c ---------- */

/* Sign with one secret; "" if it cannot be read. */
static const char *
sign(const char *secret, const char *id, long timestamp, const char *body)
{
	static char value[SIGNATURE_LENGTH];

	if (!signature_sign(&secret, 1, id, timestamp, body, body ? strlen(body) : 0, value))
		return "";
	return value;
}

static void
test_signatures(void)
{
	static const char *const secrets[] = {
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_plJ3nmyCDGBKInavdOK15jsl"
	};
	static const char *const unreadable[] = {
		"", "whsec_", "whsec", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8IL",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==x",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaL===", "whsec_MfKQ9r8G KYqrTwjUPD8ILPZIo2LaLaSw",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw====",
		"whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_=MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS=="
	};
	const char *both[] = {secrets[0], secrets[1], secrets[0], secrets[1]};
	char		value[SIGNATURE_LENGTH * SIGNATURE_SECRETS_MAX];
	char		encoded[1100] = "whsec_";
	struct timespec start;
	struct timespec end;
	int			wrong = 0;

	ok(strcmp(sign(secrets[0], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}"),
			  "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=") == 0, "the published vector");
	ok(strcmp(sign(secrets[1], "msg_loFOjxBNrRLzqYUf", 1731705121,
				   "{\"event_type\":\"ping\",\"data\":{\"success\":true}}"),
			  "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=") == 0,
	   "the one with 18 bytes of secret");
	ok(signature_secret_valid(secrets[0]) && !signature_secret_valid(secrets[1]),
	   "18 bytes are no valid secret, 24 are");
	ok(signature_sign(both, 4, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
					  "{\"test\": 2432232314}", 20, value) &&
	   strlen(value) == 4 * 47 + 3 && strncmp(value, "v1,g0hM9SsE+OTPJTGt/", 20) == 0 &&
	   strncmp(value + 47, " v1,", 4) == 0 && value[48 + 47] == ' ' &&
	   strncmp(value + 96, value, 47) == 0, "four secrets: %s", value);
	ok(strlen(sign(secrets[0], "a", 0, NULL)) == 47 && strlen(sign(secrets[0], "a", 0, "")) == 47 &&
	   strlen(sign(secrets[0], "a", -9223372036854775807L, "")) == 47, "no body, odd times");

	for (int i = 0; i < lengthof(unreadable); i++)
		if (signature_secret_valid(unreadable[i]) || *sign(unreadable[i], "a", 1, "b"))
			diag("accepted: %s", unreadable[i]), wrong++;
	ok(wrong == 0 && !signature_secret_valid(NULL), "%d secrets are refused", lengthof(unreadable));
	both[1] = "whsec_!";
	ok(!signature_sign(both, 2, "a", 1, "b", 1, value) && *value == '\0' &&
	   !signature_sign(both, 0, "a", 1, "b", 1, value), "one wrong secret, or none: no signature");

	/* lengths, padded and not: 23 and 65 bytes are wrong */
	for (int bytes = 1; bytes <= 800; bytes++)
	{
		int			digits = (bytes * 8 + 5) / 6;
		bool		right = bytes >= 24 && bytes <= 64;

		if (digits > 1090)
			break;
		memset(encoded + 6, 'A', digits);
		encoded[6 + digits] = '\0';
		wrong += signature_secret_valid(encoded) != right;
		wrong += (*sign(encoded, "a", 1, "b") != '\0') != (bytes <= 190) && bytes < 190;
		while (digits % 4 != 0)
			encoded[6 + digits++] = '=';
		encoded[6 + digits] = '\0';
		wrong += signature_secret_valid(encoded) != right;
	}
	ok(wrong == 0, "24 to 64 bytes are valid, padded or not");

	clock_gettime(CLOCK_MONOTONIC, &start);
	memset(encoded, 'x', 512);
	for (int i = 0; i < 20000; i++)
		signature_sign(secrets, 1, "msg_p5jXN8AQM9LWM0D4loKWxJek", i, encoded, 512, value);
	clock_gettime(CLOCK_MONOTONIC, &end);
	diag("%.2f microseconds for a signature of 512 bytes",
		 ((double) (end.tv_sec - start.tv_sec) * 1e6 + (double) (end.tv_nsec - start.tv_nsec) / 1e3) / 20000);
}

static void
test_backoff(void)
{
	const int64_t schedule[] = {5, 300};
	const int64_t odd[] = {-1, INT64_MAX, 7};
	bool		within = true;

	ok(backoff_delay(schedule, 2, 1, 1, 1, 0) == 5 && backoff_delay(schedule, 2, 1, 1, 2, 0) == 300,
	   "the waits of a schedule, in their order");
	ok(backoff_delay(schedule, 2, 1, 1, 9, 0) == 300, "the last one for all that follow");
	ok(backoff_delay(schedule, 2, 1, 1, 2, 0.999999) <= 330, "a tenth more at most");
	for (int attempts = 1; attempts <= 1000; attempts++)
	{
		int64_t		longest = attempts > 6 ? 50 : 1 << (attempts - 1);

		if (longest > 50)
			longest = 50;
		within &= backoff_delay(NULL, 0, 1, 50, attempts, 0.999999) <= longest;
		within &= backoff_delay(NULL, 0, 1, 50, attempts, 0) == 0;
	}
	ok(within, "exponential with full jitter: from 0 to the base doubled each time, and to the longest");
	ok(backoff_delay(NULL, 0, INT64_C(1) << 40, INT64_C(1) << 41, 1000, 0.5) == INT64_C(1) << 40, "no overflow");
	within = true;
	for (int shift = 0; shift < 63; shift++)
		for (int attempts = -2; attempts <= 1000; attempts++)
			for (int other = 0; other < 63; other += 3)
			{
				int64_t		wait = backoff_delay(NULL, 0, INT64_C(1) << shift, INT64_C(1) << other, attempts, 0.999999);

				within &= wait >= 0 && wait <= BACKOFF_MAX && wait <= INT64_C(1) << other;
			}
	ok(within, "nor with any base and any longest wait, up to 1000 attempts");
	ok(backoff_delay(odd, 3, 1, 1, INT32_MIN, 0.5) == 0 && backoff_delay(odd, 3, 1, 1, 2, 0) == BACKOFF_MAX &&
	   backoff_delay(odd, 3, 1, 1, INT32_MAX, 0) == 7 && backoff_delay(NULL, 0, -5, -5, 3, 0.5) == 0,
	   "odd schedules, bases and numbers of attempts");
}

static void
test_breaker(void)
{
	const BreakerSettings settings = {.share = 0.5,.calls = 10,.window_ms = 1000,.pause_ms = 100,.pause_max_ms = 300};
	const BreakerSettings never = {.share = 2,.calls = 1,.window_ms = 1000,.pause_ms = 100,.pause_max_ms = 300};
	Breaker		breaker = {0};
	int64_t		now = 1000000;
	bool		changed = false;

	for (int i = 0; i < 9; i++)
		changed |= breaker_record(&breaker, &settings, true, now);
	ok(!changed && breaker_permits(&breaker, now), "closed while there are too few calls");
	ok(breaker_record(&breaker, &settings, true, now) && breaker.state == BREAKER_OPEN, "open at enough failures");
	for (int i = 0; i < 20; i++)
		changed |= breaker_record(&breaker, &settings, i % 2 == 0, now + 50);
	ok(!changed && breaker.until == now + 100 && breaker.trips == 1, "answers to what was sent before change nothing");
	ok(!breaker_permits(&breaker, now + 99) && breaker_permits(&breaker, now + 100), "a probe after the pause");
	ok(breaker_call(&breaker, now + 100) && !breaker_permits(&breaker, now + 5000), "one at a time");
	breaker_record(&breaker, &settings, true, now + 110);
	ok(!breaker_permits(&breaker, now + 309) && breaker_permits(&breaker, now + 310), "twice the pause where it fails");
	breaker_call(&breaker, now + 310);
	ok(breaker_forget(&breaker, now + 320) && breaker_permits(&breaker, now + 320), "another one where it says nothing");
	breaker_call(&breaker, now + 320);
	breaker_record(&breaker, &settings, true, now + 330);
	ok(breaker.until == now + 630 && breaker.trips == 3, "the longest pause at most");
	breaker_call(&breaker, now + 630);
	ok(breaker_record(&breaker, &settings, false, now + 640) && breaker.state == BREAKER_CLOSED && breaker.trips == 0, "closed by a success");

	for (int i = 0; i < 8; i++)
		breaker_record(&breaker, &settings, true, now + 1000);
	for (int i = 0; i < 20; i++)
		breaker_record(&breaker, &settings, true, now + 3000 + i * 150);
	ok(breaker.state == BREAKER_CLOSED, "old failures do not count");
	memset(&breaker, 0, sizeof(breaker));
	for (int i = 0; i < 100; i++)
		breaker_record(&breaker, &settings, i % 5 >= 3, now);
	ok(breaker.state == BREAKER_CLOSED, "nor do failures below the share");
	memset(&breaker, 0, sizeof(breaker));
	for (int i = 0; i < 100; i++)
		breaker_record(&breaker, &never, true, now);
	ok(breaker.state == BREAKER_CLOSED, "a share above 1 never opens it");
}

int
main(void)
{
	test_backoff();
	test_breaker();
	test_addresses();
	test_exceptions();
	test_urls();
	test_signatures();
	printf("1..%d\n", test_number);
	return failures > 0;
}
