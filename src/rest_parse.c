/*
 * rest_parse.c
 *		The query string of PostgREST's dialect as a tree.
 */
#include "rest_parse.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "url.h"

#define DEPTH_MAX	32			/* and/or within and/or */

/* What is being read: one parameter, decoded. */
typedef struct Reader
{
	const char *begin;
	const char *at;
	const char *what;			/* such as "filter", for the error */
	Allocate	alloc;
	RestParseError *error;
	bool		failed;
	int			depth;
} Reader;

static void *
make(Allocate alloc, size_t size)
{
	void	   *result = alloc(size);

	memset(result, 0, size);
	return result;
}

static char *
copy(Allocate alloc, const char *text, size_t length)
{
	char	   *result = alloc(length + 1);

	memcpy(result, text, length);
	result[length] = '\0';
	return result;
}

static const char *
format(Allocate alloc, const char *text,...)
{
	va_list		args;
	va_list		again;
	int			length;
	char	   *result;

	va_start(args, text);
	va_copy(again, args);
	length = vsnprintf(NULL, 0, text, args);
	va_end(args);
	result = alloc(length + 1);
	vsnprintf(result, length + 1, text, again);
	va_end(again);
	return result;
}

/* ---------------------------------------------------------------- errors */

/* The parameter is wrong where the reader is; the first error counts. */
static bool
fail(Reader *r, const char *expected)
{
	int			column = 1;
	size_t		length = 1;

	if (r->failed)
		return false;
	r->failed = true;
	for (const char *c = r->begin; c < r->at; c++)
		column += ((unsigned char) *c & 0xC0) != 0x80;
	while (*r->at && ((unsigned char) r->at[length] & 0xC0) == 0x80)
		length++;
	r->error->message = format(r->alloc, "\"failed to parse %s (%s)\" (line 1, column %d)", r->what, r->begin, column);
	if (*r->at == '\0')
		r->error->details = format(r->alloc, "unexpected end of input expecting %s", expected);
	else
		r->error->details = format(r->alloc, "unexpected \"%s%.*s\" expecting %s",
								   *r->at == '"' || *r->at == '\\' ? "\\" : "", (int) length, r->at, expected);
	return false;
}

static bool
skip(Reader *r, const char *text)
{
	size_t		length = strlen(text);

	if (strncmp(r->at, text, length) != 0)
		return false;
	r->at += length;
	return true;
}

static void
skip_blanks(Reader *r)
{
	while (*r->at == ' ' || *r->at == '\t')
		r->at++;
}

static bool
expect(Reader *r, const char *text, const char *expected)
{
	return skip(r, text) || fail(r, expected);
}

/* ---------------------------------------------------------------- names and values */

/* "..." with \ before any character; false, and nothing read, if it is not closed. */
static bool
read_quoted(Reader *r, const char **value)
{
	const char *end = r->at;
	char	   *result;
	size_t		n = 0;

	if (*end != '"')
		return false;
	for (end++; *end != '"'; end++)
	{
		if (*end == '\\' && end[1] != '\0')
			end++;
		if (*end == '\0')
			return false;
	}
	/* with no more room than it needs: a query may have thousands */
	result = r->alloc(end - r->at);
	for (const char *c = r->at + 1; c < end; c++)
	{
		c += *c == '\\';
		result[n++] = *c;
	}
	result[n] = '\0';
	r->at = end + 1;
	*value = result;
	return true;
}

static bool
is_name_char(char c)
{
	return isalnum((unsigned char) c) || (unsigned char) c >= 0x80 || c == '_' || c == ' ' || c == '$';
}

/* A copy without the blanks around it. */
static const char *
trimmed(Reader *r, const char *begin, const char *end)
{
	while (begin < end && *begin == ' ')
		begin++;
	while (end > begin && end[-1] == ' ')
		end--;
	return copy(r->alloc, begin, end - begin);
}

#define FIELD_NAME	"field name (* or [a..z0..9_$])"

/* A column's name, quoted or plain, dashes within. */
static bool
read_name(Reader *r, const char **name)
{
	const char *begin = r->at;

	if (*r->at == '"')
		return read_quoted(r, name) || fail(r, "\"\\\"\"");
	while (is_name_char(*r->at) || (*r->at == '-' && r->at[1] != '>' && r->at > begin && is_name_char(r->at[1])))
		r->at++;
	if (r->at == begin)
		return fail(r, FIELD_NAME);
	*name = trimmed(r, begin, r->at);
	return true;
}

/* -> and ->> with keys and indexes, as many as there are. */
static bool
read_steps(Reader *r, RestField *field)
{
	int			room = 0;

	field->nsteps = 0;
	field->steps = NULL;
	while (strncmp(r->at, "->", 2) == 0)
	{
		RestStep	step = {.text = r->at[2] == '>'};
		const char *begin;

		r->at += step.text ? 3 : 2;
		begin = r->at;
		if (*r->at == '"')
		{
			if (!read_quoted(r, &step.key))
				return fail(r, "\"\\\"\"");
		}
		else
		{
			const char *c = r->at + (*r->at == '-');

			while (isdigit((unsigned char) *c))
				c++;
			if (c > r->at + (*r->at == '-') && (*c == '\0' || strchr(".,)", *c) || strncmp(c, "->", 2) == 0 || strncmp(c, "::", 2) == 0))
			{
				step.index = true;
				r->at = c;
			}
			else
				while (*r->at && !strchr("(:.,>)", *r->at) && !(*r->at == '-' && (r->at[1] == '>' || r->at == begin)))
					r->at++;
			if (r->at == begin)
				return fail(r, "any non reserved character different from: .,>()");
			step.key = trimmed(r, begin, r->at);
		}
		if (field->nsteps == room)
		{
			RestStep   *grown = make(r->alloc, (room * 2 + 4) * sizeof(RestStep));

			if (room > 0)
				memcpy(grown, field->steps, room * sizeof(RestStep));
			field->steps = grown;
			room = room * 2 + 4;
		}
		field->steps[field->nsteps++] = step;
	}
	return true;
}

static bool
read_field(Reader *r, RestField *field)
{
	skip_blanks(r);
	if (!read_name(r, &field->name) || !read_steps(r, field))
		return false;
	skip_blanks(r);
	return true;
}

/* What ends a value within a list or a logic tree: a comma, a parenthesis, the end. */
static bool
at_end_of_element(const Reader *r)
{
	return *r->at == '\0' || *r->at == ',' || *r->at == ')';
}

/* An element of a list: quoted, or whatever comes before a comma or parenthesis. */
static const char *
read_element(Reader *r)
{
	const char *begin = r->at;
	const char *value;

	if (read_quoted(r, &value))
	{
		if (at_end_of_element(r))
			return value;
		r->at = begin;
	}
	while (!at_end_of_element(r))
		r->at++;
	return copy(r->alloc, begin, r->at - begin);
}

/* A value within a logic tree: the same, or an array's braces kept whole. */
static const char *
read_logic_value(Reader *r)
{
	if (*r->at == '{')
	{
		const char *end = strpbrk(r->at + 1, "{}");

		if (end && *end == '}')
		{
			const char *value = copy(r->alloc, r->at, end + 1 - r->at);

			r->at = end + 1;
			return value;
		}
	}
	return read_element(r);
}

/* ---------------------------------------------------------------- filters */

static const struct
{
	const char *name;
	RestOp		op;
	bool		quantified;		/* may have (any) or (all) */
	bool		language;		/* may have (a language) */
}			operators[] =

{
	{"eq", REST_EQ, true},
	{"neq", REST_NEQ},
	{"gt", REST_GT, true},
	{"gte", REST_GTE, true},
	{"lt", REST_LT, true},
	{"lte", REST_LTE, true},
	{"like", REST_LIKE, true},
	{"ilike", REST_ILIKE, true},
	{"match", REST_MATCH, true},
	{"imatch", REST_IMATCH, true},
	{"in", REST_IN},
	{"is", REST_IS},
	{"isdistinct", REST_ISDISTINCT},
	{"cs", REST_CS},
	{"cd", REST_CD},
	{"ov", REST_OV},
	{"sl", REST_SL},
	{"sr", REST_SR},
	{"nxr", REST_NXR},
	{"nxl", REST_NXL},
	{"adj", REST_ADJ},
	{"fts", REST_FTS, false, true},
	{"plfts", REST_PLFTS, false, true},
	{"phfts", REST_PHFTS, false, true},
	{"wfts", REST_WFTS, false, true},
};

#define NOPERATORS	((int) (sizeof(operators) / sizeof(operators[0])))
#define OPERATOR	"operator (eq, gt, ...)"

/* An operator's name, its quantifier or language, and the dot; false, and nothing read, if there is none. */
static bool
read_operator(Reader *r, RestLogic *filter)
{
	size_t		length = strspn(r->at, "abcdefghijklmnopqrstuvwxyz");
	const char *after = r->at + length;

	for (int i = 0; i < NOPERATORS; i++)
	{
		if (strlen(operators[i].name) != length || strncmp(r->at, operators[i].name, length) != 0)
			continue;
		filter->op = operators[i].op;
		filter->quantifier = REST_ONE;
		if (operators[i].quantified && strncmp(after, "(any)", 5) == 0)
			filter->quantifier = REST_ANY;
		else if (operators[i].quantified && strncmp(after, "(all)", 5) == 0)
			filter->quantifier = REST_ALL;
		if (filter->quantifier != REST_ONE)
			after += 5;
		if (operators[i].language && *after == '(')
		{
			const char *end = after + 1;

			while (is_name_char(*end))
				end++;
			if (*end != ')' || end == after + 1)
				return false;
			filter->language = trimmed(r, after + 1, end);
			after = end + 1;
		}
		if (*after != '.')
			return false;
		r->at = after + 1;
		return true;
	}
	return false;
}

static bool
read_list(Reader *r, RestLogic *filter)
{
	int			room = 0;

	skip_blanks(r);
	if (!expect(r, "(", "\"(\""))
		return false;
	filter->list = NULL;
	filter->nlist = 0;
	skip_blanks(r);
	do
	{
		if (filter->nlist == room)
		{
			const char **grown = r->alloc((room * 2 + 4) * sizeof(char *));

			if (room > 0)
				memcpy(grown, filter->list, room * sizeof(char *));
			filter->list = grown;
			room = room * 2 + 4;
		}
		filter->list[filter->nlist++] = read_element(r);
	} while (skip(r, ","));
	if (!expect(r, ")", "\",\" or \")\""))
		return false;
	skip_blanks(r);
	/* in.() is in nothing */
	if (filter->nlist == 1 && filter->list[0][0] == '\0')
		filter->nlist = 0;
	return true;
}

static bool
read_is(Reader *r, RestLogic *filter)
{
	static const char *const values[] = {"not_null", "null", "true", "false", "unknown"};

	for (int i = 0; i < 5; i++)
		if (strncasecmp(r->at, values[i], strlen(values[i])) == 0)
		{
			filter->value = values[i];
			r->at += strlen(values[i]);
			return true;
		}
	return fail(r, "isVal: (null, not_null, true, false, unknown)");
}

/* "[not.]operator.value"; in_tree: the value ends at a comma or parenthesis. */
static bool
read_operation(Reader *r, RestLogic *filter, bool in_tree)
{
	bool		negated = skip(r, "not.");

	filter->kind = REST_FILTER;
	filter->negated = negated;
	if (!read_operator(r, filter))
		return fail(r, negated ? OPERATOR : "\"not\" or " OPERATOR);
	if (filter->op == REST_IN)
	{
		if (!read_list(r, filter))
			return false;
	}
	else if (filter->op == REST_IS)
	{
		if (!read_is(r, filter))
			return false;
	}
	else if (in_tree)
		filter->value = read_logic_value(r);
	else
	{
		filter->value = r->at;
		r->at += strlen(r->at);
	}
	return (in_tree ? at_end_of_element(r) || *r->at == ' ' : *r->at == '\0') || fail(r, "\",\" or end of input");
}

static RestLogic *read_tree(Reader *r);

/* "(part,part...)" of and/or. */
static bool
read_parts(Reader *r, RestLogic *logic)
{
	RestLogic **link = &logic->first;

	skip_blanks(r);
	if (!expect(r, "(", "\"(\""))
		return false;
	do
	{
		skip_blanks(r);
		*link = read_tree(r);
		if (*link == NULL)
			return false;
		link = &(*link)->next;
		skip_blanks(r);
	} while (skip(r, ","));
	return expect(r, ")", "\",\" or \")\"");
}

/* A filter, or and/or with its parts. */
static RestLogic *
read_tree(Reader *r)
{
	RestLogic  *logic = make(r->alloc, sizeof(RestLogic));
	const char *begin = r->at;
	bool		negated;

	if (++r->depth > DEPTH_MAX)
	{
		fail(r, "less nesting");
		return NULL;
	}
	negated = skip(r, "not.");
	if (strncmp(r->at, "and(", 4) == 0 || strncmp(r->at, "or(", 3) == 0)
	{
		logic->kind = *r->at == 'a' ? REST_AND : REST_OR;
		logic->negated = negated;
		r->at += logic->kind == REST_AND ? 3 : 2;
		if (!read_parts(r, logic))
			return NULL;
	}
	else
	{
		r->at = begin;
		if (at_end_of_element(r))
		{
			fail(r, FIELD_NAME ", negation operator (not) or logic operator (and, or)");
			return NULL;
		}
		if (!read_field(r, &logic->field) || !expect(r, ".", "delimiter (.)") || !read_operation(r, logic, true))
			return NULL;
	}
	r->depth--;
	return logic;
}

/* ---------------------------------------------------------------- select, order, lists of names */

static bool
at_end_of_item(const Reader *r)
{
	return *r->at == '\0' || *r->at == ',' || *r->at == ')';
}

/* Read over the parts of an embedded relation, up to its parenthesis. */
static bool
skip_embedded(Reader *r)
{
	int			depth = 0;

	do
	{
		if (*r->at == '(')
			depth++;
		else if (*r->at == ')')
			depth--;
		else if (*r->at == '\0')
			return fail(r, "\")\"");
		r->at++;
	} while (depth > 0);
	return true;
}

static bool
read_select_item(Reader *r, RestSelect *item)
{
	const char *begin;
	const char *name;

	skip_blanks(r);
	if (skip(r, "*"))
	{
		item->kind = REST_SELECT_ALL;
		skip_blanks(r);
		return at_end_of_item(r) || fail(r, "\")\", \",\" or end of input");
	}
	if (skip(r, "..."))
		item->kind = REST_SELECT_RELATION;
	else
		item->kind = REST_SELECT_FIELD;
	begin = r->at;
	if (at_end_of_item(r))
		return fail(r, "\"...\", " FIELD_NAME ", \"*\" or \"count()\"");
	if (!read_name(r, &name))
		return false;
	if (*r->at == ':' && r->at[1] != ':' && item->kind == REST_SELECT_FIELD)
	{
		r->at++;
		item->alias = name;
		begin = r->at;
		if (!read_name(r, &name))
			return false;
	}
	item->field.name = name;
	if (*r->at == '!' || *r->at == '(')
	{
		/* embedding, with its hints; or count() */
		while (*r->at == '!')
		{
			r->at++;
			if (!read_name(r, &name))
				return false;
		}
		if (*r->at != '(')
			return fail(r, "\"(\"");
		item->kind = strncmp(begin, "count()", 7) == 0 ? REST_SELECT_AGGREGATE : REST_SELECT_RELATION;
		if (!skip_embedded(r))
			return false;
	}
	else if (!read_steps(r, &item->field))
		return false;
	for (;;)
	{
		if (skip(r, "::"))
		{
			begin = r->at;
			while (is_name_char(*r->at))
				r->at++;
			if (r->at == begin)
				return fail(r, "letter or digit");
			item->cast = trimmed(r, begin, r->at);
		}
		else if (*r->at == '.')
		{
			r->at++;
			if (!skip(r, "sum()") && !skip(r, "avg()") && !skip(r, "count()") && !skip(r, "max()") && !skip(r, "min()"))
				return fail(r, "\"sum\", \"avg\", \"count\", \"max\" or \"min\"");
			item->kind = REST_SELECT_AGGREGATE;
		}
		else
			break;
	}
	skip_blanks(r);
	return at_end_of_item(r) || fail(r, "letter, digit, \"-\", \"->>\", \"->\", \"::\", \".\", \")\", \",\" or end of input");
}

static bool
read_select(Reader *r, RestQuery *query)
{
	RestSelect **link = &query->select;

	if (*r->at == '\0')
		return true;
	do
	{
		RestSelect *item = make(r->alloc, sizeof(RestSelect));

		if (!read_select_item(r, item))
			return false;
		*link = item;
		link = &item->next;
	} while (skip(r, ","));
	return *r->at == '\0' || fail(r, "\",\" or end of input");
}

static bool
read_order(Reader *r, RestQuery *query)
{
	RestOrder **link = &query->order;

	while (*link)
		link = &(*link)->next;
	do
	{
		RestOrder  *item = make(r->alloc, sizeof(RestOrder));

		if (!read_field(r, &item->field))
			return false;
		if (*r->at == '(')
		{
			item->relation = item->field.name;
			if (!skip_embedded(r))
				return false;
		}
		if (skip(r, ".desc"))
			item->descending = true;
		else
			skip(r, ".asc");
		if (skip(r, ".nullsfirst"))
			item->nulls = 1;
		else if (skip(r, ".nullslast"))
			item->nulls = -1;
		else if (*r->at == '.')
		{
			bool		directed = r->at[-1] == 'c';	/* after asc or desc */

			return fail(r, directed ? "\"nullsfirst\" or \"nullslast\"" : "\"asc\", \"desc\", \"nullsfirst\" or \"nullslast\"");
		}
		skip_blanks(r);
		*link = item;
		link = &item->next;
	} while (skip(r, ","));
	return *r->at == '\0' || fail(r, "\",\" or end of input");
}

static bool
read_names(Reader *r, RestName **names)
{
	*names = NULL;
	do
	{
		RestName   *item = make(r->alloc, sizeof(RestName));

		skip_blanks(r);
		if (!read_name(r, &item->name))
			return false;
		skip_blanks(r);
		*names = item;
		names = &item->next;
	} while (skip(r, ","));
	return *r->at == '\0' || fail(r, "\",\" or end of input");
}

/* ---------------------------------------------------------------- the query string */

static int
compare_pairs(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* All pairs, sorted by name, encoded. */
static const char *
canonical(const char **pairs, int n, Allocate alloc)
{
	size_t		room = 1;
	size_t		length = 0;
	char	   *result;

	qsort(pairs, n, 2 * sizeof(char *), compare_pairs);
	for (int i = 0; i < 2 * n; i++)
		room += url_encode(NULL, pairs[i]) + 1;
	result = alloc(room);
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			result[length++] = '&';
		length += url_encode(result + length, pairs[2 * i]);
		result[length++] = '=';
		length += url_encode(result + length, pairs[2 * i + 1]);
	}
	result[length] = '\0';
	return result;
}

/* A whole number, or false for what is none (and then ignored). */
static bool
read_number(const char *text, int64_t *number)
{
	char	   *end;

	if (!isdigit((unsigned char) *text) && !(*text == '-' && isdigit((unsigned char) text[1])))
		return false;
	*number = strtoll(text, &end, 10);
	return *end == '\0';
}

/* The last of the parts of a name that dots separate. */
static const char *
last_part(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot ? dot + 1 : name;
}

/* The key of a filter: "column", "column->key", or "relation.column" for an embedded one. */
static bool
read_key(Reader *r, RestQuery *query, RestField *field)
{
	for (;;)
	{
		if (!read_name(r, &field->name))
			return false;
		if (!skip(r, "."))
			break;
		if (query->embedded == NULL)
			query->embedded = field->name;
	}
	if (!read_steps(r, field))
		return false;
	return *r->at == '\0' || fail(r, "\"->>\", \"->\", \".\" or end of input");
}

/* What one parameter says. */
static bool
take_pair(RestQuery *query, const char *name, const char *value, bool arguments, RestLogic ***filters,
		  RestArgument ***args, Allocate alloc, RestParseError *error)
{
	const char *last = last_part(name);
	Reader		r = {.begin = value,.at = value,.alloc = alloc,.error = error};
	RestLogic  *filter;

	if (strcmp(name, "select") == 0)
	{
		r.what = "select parameter";
		return query->select != NULL || read_select(&r, query);
	}
	if (strcmp(name, "columns") == 0)
	{
		r.what = "columns parameter";
		return query->columns != NULL || read_names(&r, &query->columns);
	}
	if (strcmp(name, "on_conflict") == 0)
	{
		r.what = "on_conflict parameter";
		return query->on_conflict != NULL || read_names(&r, &query->on_conflict);
	}
	if (strcmp(last, "order") == 0 || strcmp(last, "limit") == 0 || strcmp(last, "offset") == 0)
	{
		if (last != name)
			query->embedded = query->embedded ? query->embedded : copy(alloc, name, last - name - 1);
		else if (*last == 'o' && last[1] == 'r')
		{
			r.what = "order";
			return read_order(&r, query);
		}
		else if (*last == 'l')
			query->has_limit = read_number(value, &query->limit);
		else if (!read_number(value, &query->offset))
			query->offset = 0;
		return true;
	}
	if (strcmp(last, "and") == 0 || strcmp(last, "or") == 0)
	{
		if (last != name && strncmp(name, "not.", 4) != 0)
			query->embedded = query->embedded ? query->embedded : copy(alloc, name, last - name - 1);
		r.what = "logic tree";
		filter = make(alloc, sizeof(RestLogic));
		filter->kind = *last == 'a' ? REST_AND : REST_OR;
		filter->negated = strncmp(name, "not.", 4) == 0;
		if (!read_parts(&r, filter))
			return false;
		if (*r.at != '\0')
			return fail(&r, "end of input");
	}
	else
	{
		Reader		key = {.begin = name,.at = name,.what = "tree path",.alloc = alloc,.error = error};
		RestLogic	probe = {.language = NULL};

		if (arguments)
		{
			/* not an operator: an argument */
			skip(&r, "not.");
			if (!read_operator(&r, &probe))
			{
				RestArgument *argument = make(alloc, sizeof(RestArgument));

				argument->name = name;
				argument->value = value;
				**args = argument;
				*args = &argument->next;
				return true;
			}
			r.at = r.begin;
		}
		r.what = "filter";
		filter = make(alloc, sizeof(RestLogic));
		if (!read_key(&key, query, &filter->field) || !read_operation(&r, filter, false))
			return false;
	}
	**filters = filter;
	*filters = &filter->next;
	return true;
}

RestQuery *
rest_parse(const char *text, bool arguments, Allocate alloc, RestParseError *error)
{
	RestQuery  *query = make(alloc, sizeof(RestQuery));
	RestLogic **filters = &query->filters;
	RestArgument **args = &query->arguments;
	const char *at = text ? text : "";
	const char **pairs;
	int			room = 1;
	int			n = 0;
	const char *name;
	const char *value;

	for (const char *c = at; *c; c++)
		room += *c == '&';
	pairs = alloc(2 * room * sizeof(char *));
	while (url_next_pair(&at, alloc, &name, &value))
	{
		pairs[2 * n] = name;
		pairs[2 * n + 1] = value ? value : "";
		n++;
		if (value && !take_pair(query, name, value, arguments, &filters, &args, alloc, error))
			return NULL;
	}
	query->canonical = canonical(pairs, n, alloc);
	return query;
}
