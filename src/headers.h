/*
 * headers.h
 *		Headers that are stored as a jsonb object of strings.
 */
#ifndef MSGSYS_HEADERS_H
#define MSGSYS_HEADERS_H

#include "msgsys.h"

#include "utils/jsonb.h"

/* A walk over them; each name is followed by its value. */
typedef struct HeaderWalk
{
	JsonbIterator *it;
} HeaderWalk;

extern void headers_begin(HeaderWalk *walk, Jsonb *headers);
extern bool headers_next(HeaderWalk *walk, JsonbValue *name, JsonbValue *value);

extern bool has_control_character(const char *text, int length);
extern bool header_name_is_token(const char *name, int length);

/* Refuses a name by an error. */
typedef void (*HeaderNameCheck) (const char *name, int length);

extern void headers_check(Jsonb *headers, HeaderNameCheck check_name);

#endif							/* MSGSYS_HEADERS_H */
