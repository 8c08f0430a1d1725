/*
 * query.c
 *		Fuzzes the query strings of PostgREST's dialect (src/rest_parse.c).
 *
 * What is parsed, written out again with every name and value quoted, and parsed again is the same
 * tree; the canonical form of a canonical form is itself; nesting is bounded, and memory
 * by the length of the query.  The first byte says whether arguments are possible.
 */
#include "rest_parse.h"

#include <stdarg.h>

#include "arena.h"
#include "fuzz.h"

extern int	fuzz_query(const uint8_t *data, size_t size);

#define DEEPEST		33			/* and/or within and/or, and a filter */

static const char *const operators[] = {
	[REST_EQ] = "eq",[REST_NEQ] = "neq",[REST_GT] = "gt",[REST_GTE] = "gte",[REST_LT] = "lt",[REST_LTE] = "lte",
	[REST_LIKE] = "like",[REST_ILIKE] = "ilike",[REST_MATCH] = "match",[REST_IMATCH] = "imatch",[REST_IN] = "in",
	[REST_IS] = "is",[REST_ISDISTINCT] = "isdistinct",[REST_CS] = "cs",[REST_CD] = "cd",[REST_OV] = "ov",
	[REST_SL] = "sl",[REST_SR] = "sr",[REST_NXR] = "nxr",[REST_NXL] = "nxl",[REST_ADJ] = "adj",[REST_FTS] = "fts",
	[REST_PLFTS] = "plfts",[REST_PHFTS] = "phfts",[REST_WFTS] = "wfts"
};

/* ---------- writing a tree out again ---------- */

/* A text in the making, in the arena. */
typedef struct Text
{
	char	   *data;
	size_t		length;
	size_t		room;
} Text;

static void
add_length(Text *out, const char *text, size_t length)
{
	if (out->length + length + 1 > out->room)
	{
		char	   *grown = malloc(out->room = (out->length + length + 1) * 2);

		memcpy(grown, out->data ? out->data : "", out->length);
		free(out->data);
		out->data = grown;
	}
	memcpy(out->data + out->length, text, length);
	out->length += length;
	out->data[out->length] = '\0';
}

static void
add(Text *out, const char *text)
{
	add_length(out, text, strlen(text));
}

static void
add_quoted(Text *out, const char *text)
{
	add(out, "\"");
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			add(out, "\\");
		add_length(out, text, 1);
	}
	add(out, "\"");
}

/* What is trimmed to nothing was blanks. */
static void
add_word(Text *out, const char *word)
{
	add(out, *word ? word : " ");
}

static void
add_field(Text *out, const RestField *field)
{
	add_quoted(out, field->name);
	for (int i = 0; i < field->nsteps; i++)
	{
		add(out, field->steps[i].text ? "->>" : "->");
		if (field->steps[i].index)
			add(out, field->steps[i].key);
		else
			add_quoted(out, field->steps[i].key);
	}
}

static void
add_operation(Text *out, const RestLogic *filter, bool in_tree)
{
	add(out, filter->negated ? "not." : "");
	add(out, operators[filter->op]);
	add(out, filter->quantifier == REST_ANY ? "(any)" : filter->quantifier == REST_ALL ? "(all)" : "");
	if (filter->language)
	{
		add(out, "(");
		add_word(out, filter->language);
		add(out, ")");
	}
	add(out, ".");
	if (filter->op == REST_IN)
	{
		add(out, "(");
		for (int i = 0; i < filter->nlist; i++)
		{
			add(out, i > 0 ? "," : "");
			add_quoted(out, filter->list[i]);
		}
		add(out, ")");
	}
	else if (in_tree && filter->op != REST_IS)
		add_quoted(out, filter->value);
	else
		add(out, filter->value);
}

static void
add_parts(Text *out, const RestLogic *logic, int depth)
{
	PROPERTY(depth <= DEEPEST && logic->first != NULL);
	add(out, "(");
	for (const RestLogic *part = logic->first; part; part = part->next)
	{
		if (part->kind == REST_FILTER)
		{
			add_field(out, &part->field);
			add(out, ".");
			add_operation(out, part, true);
		}
		else
		{
			add(out, part->negated ? "not." : "");
			add(out, part->kind == REST_AND ? "and" : "or");
			add_parts(out, part, depth + 1);
		}
		add(out, part->next ? "," : "");
	}
	add(out, ")");
}

/* "&name=value", both encoded. */
static void
add_pair(Text *out, const char *name, const char *value)
{
	const char *const parts[] = {name, value};

	for (int i = 0; i < 2; i++)
	{
		char	   *code = malloc(url_encode(NULL, parts[i]) + 1);

		add(out, i == 0 ? "&" : "=");
		add_length(out, code, url_encode(code, parts[i]));
		free(code);
	}
}

static void
add_filter(Text *out, const RestLogic *filter)
{
	Text		name = {0};
	Text		value = {0};

	if (filter->kind == REST_FILTER)
	{
		add_field(&name, &filter->field);
		add_operation(&value, filter, false);
	}
	else
	{
		add(&name, filter->negated ? "not." : "");
		add(&name, filter->kind == REST_AND ? "and" : "or");
		add_parts(&value, filter, 1);
	}
	add_pair(out, name.data, value.data);
	free(name.data);
	free(value.data);
}

static void
add_select(Text *out, const RestSelect *select)
{
	Text		value = {0};

	for (const RestSelect *item = select; item; item = item->next)
	{
		if (item->kind == REST_SELECT_ALL)
			add(&value, "*");
		else
		{
			if (item->alias)
			{
				add_quoted(&value, item->alias);
				add(&value, ":");
			}
			add_field(&value, &item->field);
		}
		if (item->cast)
		{
			add(&value, "::");
			add_word(&value, item->cast);
		}
		add(&value, item->next ? "," : "");
	}
	add_pair(out, "select", value.data);
	free(value.data);
}

static void
add_order(Text *out, const RestOrder *order)
{
	Text		value = {0};

	for (const RestOrder *item = order; item; item = item->next)
	{
		add_field(&value, &item->field);
		add(&value, item->descending ? ".desc" : ".asc");
		add(&value, item->nulls > 0 ? ".nullsfirst" : item->nulls < 0 ? ".nullslast" : "");
		add(&value, item->next ? "," : "");
	}
	add_pair(out, "order", value.data);
	free(value.data);
}

static void
add_names(Text *out, const char *parameter, const RestName *names)
{
	Text		value = {0};

	for (; names; names = names->next)
	{
		add_quoted(&value, names->name);
		add(&value, names->next ? "," : "");
	}
	add_pair(out, parameter, value.data);
	free(value.data);
}

/* A query written out again, to be freed. */
static char *
written(const RestQuery *query)
{
	Text		out = {0};
	char		number[32];

	add(&out, "");
	if (query->select)
		add_select(&out, query->select);
	for (const RestLogic *filter = query->filters; filter; filter = filter->next)
		add_filter(&out, filter);
	if (query->order)
		add_order(&out, query->order);
	if (query->columns)
		add_names(&out, "columns", query->columns);
	if (query->on_conflict)
		add_names(&out, "on_conflict", query->on_conflict);
	for (const RestArgument *argument = query->arguments; argument; argument = argument->next)
		add_pair(&out, argument->name, argument->value);
	snprintf(number, sizeof(number), "%lld", (long long) query->limit);
	if (query->has_limit)
		add_pair(&out, "limit", number);
	snprintf(number, sizeof(number), "%lld", (long long) query->offset);
	add_pair(&out, "offset", number);
	return out.data;
}

/* ---------- comparing trees ---------- */

static bool
same_text(const char *a, const char *b)
{
	return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static bool
same_field(const RestField *a, const RestField *b)
{
	bool		same = same_text(a->name, b->name) && a->nsteps == b->nsteps;

	for (int i = 0; same && i < a->nsteps; i++)
		same = a->steps[i].text == b->steps[i].text && a->steps[i].index == b->steps[i].index &&
			same_text(a->steps[i].key, b->steps[i].key);
	return same;
}

static bool
same_logic(const RestLogic *a, const RestLogic *b)
{
	for (; a && b; a = a->next, b = b->next)
	{
		if (a->kind != b->kind || a->negated != b->negated)
			return false;
		if (a->kind != REST_FILTER && !same_logic(a->first, b->first))
			return false;
		if (a->kind != REST_FILTER)
			continue;
		if (!same_field(&a->field, &b->field) || a->op != b->op || a->quantifier != b->quantifier ||
			!same_text(a->language, b->language) || !same_text(a->value, b->value) || a->nlist != b->nlist)
			return false;
		for (int i = 0; i < a->nlist; i++)
			if (!same_text(a->list[i], b->list[i]))
				return false;
	}
	return a == NULL && b == NULL;
}

static bool
same_names(const RestName *a, const RestName *b)
{
	for (; a && b && same_text(a->name, b->name); a = a->next, b = b->next)
		;
	return a == NULL && b == NULL;
}

static bool
same_query(const RestQuery *a, const RestQuery *b)
{
	const RestSelect *s = a->select;
	const RestSelect *t = b->select;
	const RestOrder *o = a->order;
	const RestOrder *p = b->order;
	const RestArgument *x = a->arguments;
	const RestArgument *y = b->arguments;

	for (; s && t; s = s->next, t = t->next)
		if (s->kind != t->kind || !same_text(s->alias, t->alias) || !same_text(s->cast, t->cast) ||
			(s->kind != REST_SELECT_ALL && !same_field(&s->field, &t->field)))
			return false;
	for (; o && p; o = o->next, p = p->next)
		if (!same_field(&o->field, &p->field) || o->descending != p->descending || o->nulls != p->nulls)
			return false;
	for (; x && y; x = x->next, y = y->next)
		if (!same_text(x->name, y->name) || !same_text(x->value, y->value))
			return false;
	return s == t && o == p && x == y && same_logic(a->filters, b->filters) && same_names(a->columns, b->columns) &&
		same_names(a->on_conflict, b->on_conflict) && a->has_limit == b->has_limit && (!a->has_limit || a->limit == b->limit) &&
		a->offset == b->offset;
}

/* ---------- the target ---------- */

/* Whether all of a query can be written out again: what is not served is known by its name alone. */
static bool
is_served(const RestQuery *query)
{
	if (query->embedded)
		return false;
	for (const RestSelect *item = query->select; item; item = item->next)
		if (item->kind == REST_SELECT_RELATION || item->kind == REST_SELECT_AGGREGATE)
			return false;
	for (const RestOrder *item = query->order; item; item = item->next)
		if (item->relation)
			return false;
	return true;
}

int
fuzz_query(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	bool		arguments = fuzz_byte(&input) % 2 == 1;
	char	   *text = fuzz_rest(&input);
	RestParseError error = {NULL, NULL};
	RestQuery  *query = rest_parse(text, arguments, arena_alloc, &error);

	/* a parser that takes more than so much for a byte can be made to take all there is */
	PROPERTY(arena_size <= 200 * strlen(text) + 4096);
	if (query == NULL)
		PROPERTY(error.message && error.details && strlen(error.message) + strlen(error.details) < 4 * size + 1000);
	else
	{
		RestQuery  *canonical = rest_parse(query->canonical, arguments, arena_alloc, &error);

		PROPERTY(canonical == NULL || strcmp(canonical->canonical, query->canonical) == 0);
		if (is_served(query))
		{
			char	   *out = written(query);
			RestQuery  *again = rest_parse(out, arguments, arena_alloc, &error);

			PROPERTY(again != NULL);
			PROPERTY(same_query(query, again));
			free(out);
		}
	}
	arena_reset();
	free(text);
	return 0;
}
