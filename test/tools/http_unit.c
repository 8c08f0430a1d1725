/*
 * http_unit.c
 *		Tests of rest_parse.c and jwt.c alone.
 *
 * Needs no PostgreSQL; test/tools/Makefile builds it.  Prints TAP; the exit
 * status is 1 if a test failed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jwt.h"
#include "rest_parse.h"
#include "tap.h"

/* what is parsed is never freed: the server resets its memory after each request */
const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}

#define lengthof(array)		((int) (sizeof(array) / sizeof((array)[0])))

/* ---------- rest_parse.c ---------- */

static void *
take(size_t size)
{
	/* of exactly this size, so that a memory checker sees what goes beyond */
	void	   *result = malloc(size ? size : 1);

	if (result == NULL)
		abort();
	return result;
}

static char out[4096];

static void
add(const char *text)
{
	strncat(out, text, sizeof(out) - strlen(out) - 1);
}

static void
show_field(const RestField *field)
{
	add(field->name);
	for (int i = 0; i < field->nsteps; i++)
	{
		add(field->steps[i].text ? "->>" : "->");
		add(field->steps[i].index ? "#" : "");
		add(field->steps[i].key);
	}
}

static void
show_logic(const RestLogic *logic)
{
	char		op[16];

	if (logic->negated)
		add("!");
	if (logic->kind != REST_FILTER)
	{
		add(logic->kind == REST_AND ? "and(" : "or(");
		for (const RestLogic *part = logic->first; part; part = part->next)
		{
			show_logic(part);
			if (part->next)
				add(" ");
		}
		add(")");
		return;
	}
	show_field(&logic->field);
	snprintf(op, sizeof(op), " %d%s ", logic->op, logic->quantifier == REST_ANY ? "?" : logic->quantifier == REST_ALL ? "*" : "");
	add(op);
	if (logic->language)
		add(logic->language);
	if (logic->op == REST_IN)
		for (int i = 0; i < logic->nlist; i++)
		{
			add("[");
			add(logic->list[i]);
			add("]");
		}
	else
		add(logic->value);
}

/* All of a query in a line; or its error. */
static const char *
show(const char *text, bool arguments)
{
	RestParseError error = {NULL, NULL};
	RestQuery  *query = rest_parse(text, arguments, take, &error);

	out[0] = '\0';
	if (query == NULL)
	{
		add(error.message);
		add(" | ");
		add(error.details);
		return out;
	}
	for (const RestSelect *s = query->select; s; s = s->next)
	{
		add(s->kind == REST_SELECT_ALL ? "S:*" : s->kind == REST_SELECT_RELATION ? "R:" : s->kind == REST_SELECT_AGGREGATE ? "A:" : "S:");
		if (s->alias)
		{
			add(s->alias);
			add("=");
		}
		if (s->kind != REST_SELECT_ALL)
			show_field(&s->field);
		if (s->cast)
		{
			add("::");
			add(s->cast);
		}
		add(";");
	}
	for (const RestLogic *f = query->filters; f; f = f->next)
	{
		add("F:");
		show_logic(f);
		add(";");
	}
	for (const RestOrder *o = query->order; o; o = o->next)
	{
		add("O:");
		show_field(&o->field);
		add(o->descending ? " desc" : "");
		add(o->nulls > 0 ? " first" : o->nulls < 0 ? " last" : "");
		add(";");
	}
	for (const RestName *n = query->columns; n; n = n->next)
	{
		add("C:");
		add(n->name);
		add(";");
	}
	for (const RestArgument *a = query->arguments; a; a = a->next)
	{
		add("=");
		add(a->name);
		add(":");
		add(a->value);
		add(";");
	}
	if (query->embedded)
	{
		add("E:");
		add(query->embedded);
		add(";");
	}
	return out;
}

static void
test_queries(void)
{
	static const struct
	{
		const char *text;
		const char *shown;
		bool		arguments;
	}			cases[] = {
		{"", ""},
		{"&&", ""},
		{"select=", ""},
		{"select=*", "S:*;"},
		{"select=a,b:c,d->e->>0,f::text,g->>h::int", "S:a;S:b=c;S:d->e->>#0;S:f::text;S:g->>h::int;"},
		{"select=\"a,b\",%22c%5C%22d%22", "S:a,b;S:c\"d;"},
		{"select=a-b,a->b", "S:a-b;S:a->b;"},
		{"select=x(*),y:z!inner(a,b(c)),...w(v)", "R:x;R:y=z;R:w;"},
		{"select=a.sum(),count(),b.max()::text", "A:a;A:count;A:b::text;"},
		{"select=a->-1", "S:a->#-1;"},
		{"select=a::b::c", "S:a::c;"},
		{"a=eq.1&b=not.gt.2", "F:a 0 1;F:!b 2 2;"},
		{"a=eq.", "F:a 0 ;"},
		{"a=eq.1.2", "F:a 0 1.2;"},
		{"a=like(any).{x,y}", "F:a 6? {x,y};"},
		{"a=gt(all).{1}", "F:a 2* {1};"},
		{"a=in.(1,\"2,3\",x%20)", "F:a 10 [1][2,3][x ];"},
		{"a=in.()", "F:a 10 ;"},
		{"a=in.(\"a\"b)", "F:a 10 [\"a\"b];"},
		{"a=is.NULL", "F:a 11 null;"},
		{"a=is.Not_Null", "F:a 11 not_null;"},
		{"a=fts(english).x", "F:a 21 englishx;"},
		{"a=fts.x", "F:a 21 x;"},
		{"a=cs.{1,2}", "F:a 13 {1,2};"},
		{"a->b->>c=eq.x", "F:a->b->>c 0 x;"},
		{"or=(a.eq.1,b.not.in.(2,3),not.and(c.is.null,d.eq.\"x)\"))", "F:or(a 0 1 !b 10 [2][3] !and(c 11 null d 0 x)));"},
		{"or=(a.cs.{1,2},b.eq.2)", "F:or(a 13 {1,2} b 0 2);"},
		{"not.and=(a.eq.1)", "F:!and(a 0 1);"},
		{"or=( a.eq.1 , b.eq.2 )", "F:or(a 0 1  b 0 2 );"},
		{"order=a,b.desc,c.asc.nullsfirst,d.nullslast", "O:a;O:b desc;O:c first;O:d last;"},
		{"order=a->b.desc", "O:a->b desc;"},
		{"columns=a,\"b c\"", "C:a;C:b c;"},
		{"x=1&y=eq.2&z=", "F:y 0 2;=x:1;=z:;", true},
		{"x=not.a.filter", "=x:not.a.filter;", true},
		{"r.a=eq.1", "F:a 0 1;E:r;"},
		{"r.order=a", "E:r;"},
		{"a=eq.%41+%zz%4", "F:a 0 A %zz%4;"},
		{"a", ""},

		{"a=0", "\"failed to parse filter (0)\" (line 1, column 1) | unexpected \"0\" expecting \"not\" or operator (eq, gt, ...)"},
		{"a=not.x.1", "\"failed to parse filter (not.x.1)\" (line 1, column 5) | unexpected \"x\" expecting operator (eq, gt, ...)"},
		{"a=eq", "\"failed to parse filter (eq)\" (line 1, column 1) | unexpected \"e\" expecting \"not\" or operator (eq, gt, ...)"},
		{"a=eq(some).1", "\"failed to parse filter (eq(some).1)\" (line 1, column 1) | unexpected \"e\" expecting \"not\" or operator (eq, gt, ...)"},
		{"a=in.1", "\"failed to parse filter (in.1)\" (line 1, column 4) | unexpected \"1\" expecting \"(\""},
		{"a=in.(1", "\"failed to parse filter (in.(1)\" (line 1, column 6) | unexpected end of input expecting \",\" or \")\""},
		{"a=is.x", "\"failed to parse filter (is.x)\" (line 1, column 4) | unexpected \"x\" expecting isVal: (null, not_null, true, false, unknown)"},
		{"a=is.nullx", "\"failed to parse filter (is.nullx)\" (line 1, column 8) | unexpected \"x\" expecting \",\" or end of input"},
		{"or=a", "\"failed to parse logic tree (a)\" (line 1, column 1) | unexpected \"a\" expecting \"(\""},
		{"or=(a.eq.1", "\"failed to parse logic tree ((a.eq.1)\" (line 1, column 8) | unexpected end of input expecting \",\" or \")\""},
		{"select=a::", "\"failed to parse select parameter (a::)\" (line 1, column 4) | unexpected end of input expecting letter or digit"},
		{"select=a->", "\"failed to parse select parameter (a->)\" (line 1, column 4) | unexpected end of input expecting any non reserved character different from: .,>()"},
		{"select=a(b", "\"failed to parse select parameter (a(b)\" (line 1, column 4) | unexpected end of input expecting \")\""},
		{"select=%C3%A4!", "\"failed to parse select parameter (\303\244!)\" (line 1, column 3) | unexpected end of input expecting field name (* or [a..z0..9_$])"},
		{"order=a.descx", "\"failed to parse order (a.descx)\" (line 1, column 7) | unexpected \"x\" expecting \",\" or end of input"},
		{"a'b=eq.1", "\"failed to parse tree path (a'b)\" (line 1, column 2) | unexpected \"'\" expecting \"->>\", \"->\", \".\" or end of input"},
	};

	for (int i = 0; i < lengthof(cases); i++)
	{
		const char *shown = show(cases[i].text, cases[i].arguments);

		if (!ok(strcmp(shown, cases[i].shown) == 0, "%s", cases[i].text))
			diag("%s, not %s", shown, cases[i].shown);
	}
}

/* Nesting without end is no way to exhaust the stack, and noise is only refused. */
static void
test_noise(void)
{
	static const char alphabet[] = "abeqor(),.{}\"\\->:*!%41&=not.and in.";
	static char text[4000];
	RestParseError error;
	unsigned	seed = 1;

	strcpy(text, "or=");
	for (int i = 0; i < 600; i++)
		strcat(text, "(or");
	ok(rest_parse(text, false, take, &error) == NULL, "deep nesting is refused");
	for (int n = 0; n < 200000; n++)
	{
		int			length = rand_r(&seed) % 60;

		for (int i = 0; i < length; i++)
			text[i] = alphabet[rand_r(&seed) % (sizeof(alphabet) - 1)];
		text[length] = '\0';
		(void) rest_parse(text, n % 2, malloc, &error);
	}
	ok(true, "200,000 lines of noise");
}

static void
test_canonical(void)
{
	RestParseError error;

	ok(strcmp(rest_parse("b=eq.1&a=eq.x y&order=b", false, take, &error)->canonical, "a=eq.x%20y&b=eq.1&order=b") == 0, "the canonical form is sorted and encoded");
}

/* ---------- jwt.c ---------- */

static void
test_tokens(void)
{
	/* RFC 7515, appendix A.1: its key is 64 bytes, which have no newline */
	static const char token[] =
	"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
	static const unsigned char key[] = {
		3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40, 230, 240, 84, 201, 40, 169, 15, 132, 178, 210, 80, 46, 191,
		211, 251, 90, 146, 210, 6, 71, 239, 150, 138, 180, 195, 119, 98, 61, 34, 61, 46, 33, 114, 5, 46, 79, 8, 192, 205, 154, 245, 103, 208, 128, 163, 0};
	char		err[200] = "";
	char		changed[sizeof(token)];
	size_t		length;
	JwtKeys    *keys = jwt_keys_read(JWT_HS256, (const char *) key, err, sizeof(err));

	ok(keys != NULL, "the key of RFC 7515");
	ok(jwt_verify(keys, token) == JWT_GOOD, "its token is good");
	ok(jwt_parts(token) == 3, "in three parts");
	ok(strncmp(jwt_part(token, 1, &length), "{\"iss\":\"joe\"", 12) == 0 && length == 70, "with claims");
	strcpy(changed, token);
	changed[50] ^= 1;
	ok(jwt_verify(keys, changed) == JWT_BAD_SIGNATURE, "a changed one is not");
	strcpy(changed, token);
	changed[sizeof(token) - 2] = 'l';	/* the same bytes, with bits to spare */
	ok(jwt_verify(keys, changed) == JWT_UNREADABLE, "nor one that is spelled otherwise");
	ok(jwt_verify(keys, "a.b.") == JWT_BAD_SIGNATURE, "nor one without a signature");
	ok(jwt_verify(keys, "a.b.=") == JWT_UNREADABLE, "nor what is no base64url");
	jwt_keys_free(keys);
	ok(jwt_keys_read(JWT_HS256, "short\n", err, sizeof(err)) == NULL && strstr(err, "shorter than 32"), "a short secret is refused");
	ok(jwt_keys_read(JWT_HS256, "\n\r\n", err, sizeof(err)) == NULL && strstr(err, "no secret"), "and none");
	ok(jwt_keys_read(JWT_RS256, "x", err, sizeof(err)) == NULL && strstr(err, "no public key"), "what is no PEM");
	keys = jwt_keys_read(JWT_HS256, "0123456789012345678901234567890x\r\n0123456789012345678901234567890y", err, sizeof(err));
	ok(keys != NULL, "two secrets, one a line");
	jwt_keys_free(keys);
	jwt_keys_free(NULL);
}

int
main(void)
{
	test_queries();
	test_noise();
	test_canonical();
	test_tokens();
	printf("1..%d\n", test_number);
	return failures > 0;
}
