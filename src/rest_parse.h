/*
 * rest_parse.h
 *		The query string of PostgREST's dialect as a tree.
 *
 * Plain C; memory comes from the caller's allocator, which does not return without.
 * The grammar is that of PostgREST's documentation ("Tables and Views"), its
 * errors are its own PGRST100.
 */
#ifndef MSGSYS_REST_PARSE_H
#define MSGSYS_REST_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "url.h"

/* A step into JSON: -> or ->>, a key or an index. */
typedef struct RestStep
{
	bool		text;			/* ->> */
	bool		index;
	const char *key;			/* of an index: its digits, perhaps a minus before them */
} RestStep;

/* A column, or what is inside of its JSON. */
typedef struct RestField
{
	const char *name;
	RestStep   *steps;
	int			nsteps;
} RestField;

typedef enum RestOp
{
	REST_EQ,
	REST_NEQ,
	REST_GT,
	REST_GTE,
	REST_LT,
	REST_LTE,
	REST_LIKE,
	REST_ILIKE,
	REST_MATCH,
	REST_IMATCH,
	REST_IN,
	REST_IS,
	REST_ISDISTINCT,
	REST_CS,
	REST_CD,
	REST_OV,
	REST_SL,
	REST_SR,
	REST_NXR,
	REST_NXL,
	REST_ADJ,
	REST_FTS,
	REST_PLFTS,
	REST_PHFTS,
	REST_WFTS
} RestOp;

typedef enum RestQuantifier
{
	REST_ONE,
	REST_ANY,
	REST_ALL
} RestQuantifier;

typedef enum RestLogicKind
{
	REST_FILTER,
	REST_AND,
	REST_OR
} RestLogicKind;

/* A condition: one filter, or several under and/or. */
typedef struct RestLogic
{
	RestLogicKind kind;
	bool		negated;
	RestField	field;			/* of a filter */
	RestOp		op;
	RestQuantifier quantifier;
	const char *value;			/* of REST_IS: in lower case */
	const char **list;			/* of REST_IN */
	int			nlist;
	const char *language;		/* of full text search; NULL: none */
	struct RestLogic *first;	/* of and/or: its parts */
	struct RestLogic *next;		/* the part after this one */
} RestLogic;

typedef enum RestSelectKind
{
	REST_SELECT_ALL,			/* * */
	REST_SELECT_FIELD,
	REST_SELECT_RELATION,		/* embedding: not served */
	REST_SELECT_AGGREGATE		/* not served */
} RestSelectKind;

typedef struct RestSelect
{
	RestSelectKind kind;
	RestField	field;			/* of a relation: its name */
	const char *alias;			/* NULL: none */
	const char *cast;			/* NULL: none */
	struct RestSelect *next;
} RestSelect;

typedef struct RestOrder
{
	RestField	field;
	const char *relation;		/* an embedded one: not served; NULL: none */
	bool		descending;
	int			nulls;			/* 1 first, -1 last, 0 not said */
	struct RestOrder *next;
} RestOrder;

typedef struct RestName
{
	const char *name;
	struct RestName *next;
} RestName;

/* A parameter that is neither reserved nor a filter: an argument of a function. */
typedef struct RestArgument
{
	const char *name;
	const char *value;
	struct RestArgument *next;
} RestArgument;

typedef struct RestQuery
{
	RestSelect *select;			/* NULL: not said */
	RestLogic  *filters;		/* all of them must hold; linked by next */
	RestOrder  *order;
	RestName   *columns;		/* NULL: not said */
	RestName   *on_conflict;
	RestArgument *arguments;
	const char *embedded;		/* a relation that a parameter is for, and that is not served; NULL: none */
	bool		has_limit;
	int64_t		limit;			/* may be negative */
	int64_t		offset;
	const char *canonical;		/* sorted, encoded again */
} RestQuery;

typedef struct RestParseError
{
	const char *message;
	const char *details;
} RestParseError;

/*
 * Parse a query string (without its "?"; NULL is an empty one).  arguments: what does not look
 * like a filter is an argument.  NULL with *error set if it cannot be parsed.
 */
extern RestQuery *rest_parse(const char *text, bool arguments, Allocate alloc, RestParseError *error);

#endif							/* MSGSYS_REST_PARSE_H */
