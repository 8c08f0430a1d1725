/*
 * json_fields.h
 *		Scalar fields of the outermost object of a JSON text that anyone may have written.
 */
#ifndef MSGSYS_JSON_FIELDS_H
#define MSGSYS_JSON_FIELDS_H

#include "msgsys.h"

typedef struct JsonField
{
	const char *name;
	bool		there;			/* whatever its value is */
	char	   *text;			/* its value; NULL: not there, null, or not a scalar */
	bool		string;
	bool		number;
} JsonField;

extern bool json_fields_read(const char *text, size_t length, JsonField *fields, int nfields);
extern char *presentable(const char *text, size_t length, int limit);

#endif							/* MSGSYS_JSON_FIELDS_H */
