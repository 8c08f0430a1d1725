/*
 * headers.c
 *		Headers that are stored as a jsonb object of strings: walking over them, and
 *		checking them before they are stored.
 */
#include "headers.h"

/* Begin a walk over an object. */
void
headers_begin(HeaderWalk *walk, Jsonb *headers)
{
	walk->it = JsonbIteratorInit(&headers->root);
}

/* The next name and its value.  Returns false at the end. */
bool
headers_next(HeaderWalk *walk, JsonbValue *name, JsonbValue *value)
{
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&walk->it, value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			*name = *value;
		else if (token == WJB_VALUE)
			return true;
	}
	return false;
}

/* Whether a text could end a line where it does not stand alone. */
bool
has_control_character(const char *text, int length)
{
	for (int i = 0; i < length; i++)
		if ((unsigned char) text[i] < 0x20 || text[i] == 0x7f)
			return true;
	return false;
}

/* Whether a name can be that of an HTTP header: a token of RFC 9110, section 5.6.2. */
bool
header_name_is_token(const char *name, int length)
{
	for (int i = 0; i < length; i++)
		if (!isalnum((unsigned char) name[i]) && (name[i] == '\0' || !strchr("!#$%&'*+-.^_`|~", name[i])))
			return false;
	return length > 0;
}

/* Refuse headers that are no object of strings, have control characters or a name that check_name refuses: 22023. */
void
headers_check(Jsonb *headers, HeaderNameCheck check_name)
{
	HeaderWalk	walk;
	JsonbValue	name = {0};
	JsonbValue	value;
	bool		strings = JB_ROOT_IS_OBJECT(headers);

	headers_begin(&walk, headers);
	while (strings && headers_next(&walk, &name, &value))
	{
		check_name(name.val.string.val, name.val.string.len);
		strings = value.type == jbvString;
		if (strings && has_control_character(value.val.string.val, value.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a header's value has a control character")));
	}
	if (!strings)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be an object of strings")));
}
