/*
 * rest_body.h
 *		The body of a request: JSON or a form, and the names in it.
 */
#ifndef MSGSYS_REST_BODY_H
#define MSGSYS_REST_BODY_H

#include "msgsys.h"

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "call.h"

typedef struct RestBody
{
	Jsonb	   *json;			/* an object, or an array of objects */
	bool		array;
	int			nrows;
	List	   *names;			/* of char *: the names that its objects have, sorted */
} RestBody;

/*
 * Read it.  any_names: objects of an array may differ in their names (which are not read then).  empty_object: an
 * empty body stands for one.  Refuses what cannot be read.
 */
extern void rest_body(const Call *call, bool any_names, bool empty_object, RestBody *body);

/*
 * Refuse a JSON text (54000) whose numbers, written out, are longer than a body may be: 1e131071 is eight bytes
 * there, and 131,072 in each text that is made of it.
 */
extern void rest_body_check_numbers(const char *text);

#endif							/* MSGSYS_REST_BODY_H */
