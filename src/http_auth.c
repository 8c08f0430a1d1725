/*
 * http_auth.c
 *		Who asks: the token of a call, and the role that it names.
 *
 * Errors, statuses and the meaning of claims are PostgREST's ("Authentication").
 */
#include "msgsys.h"

#include "http_auth.h"
#include "json_fields.h"
#include "jwt.h"
#include "plain_file.h"
#include "rest_error.h"
#include "shmem.h"

#include <time.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#define SKEW			30		/* seconds that clocks may differ */
#define KEYS_FILE_MAX	(256 * 1024)	/* bytes; a thousand keys */

static JwtKeys *keys = NULL;
static char trouble[256] = "";	/* with them, when they were read last */

/* ---------------------------------------------------------------- keys */

/* The keys cannot be used: nobody is let in by a token until they can. */
static bool
complain(const char *words)
{
	strlcpy(trouble, words, sizeof(trouble));
	slot_error(trouble);
	ereport(LOG,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("msgsys cannot use the keys of msgsys.http_jwt_secret and msgsys.http_jwt_keys_file: %s", words)));
	return false;
}

/* Add the keys file to text; false if it cannot be read. */
static bool
read_keys_file(StringInfo text)
{
	char		err[MAXPGPATH + 100];
	size_t		length = 0;
	char	   *data = plain_file_read(setting_http_jwt_keys_file, KEYS_FILE_MAX, &length, err, sizeof(err));

	if (data == NULL)
		return complain(err);
	if (strlen(data) != length)
	{
		free(data);
		return complain(psprintf("\"%s\" is no text", setting_http_jwt_keys_file));
	}
	appendStringInfoString(text, data);
	explicit_bzero(data, length);
	free(data);
	return true;
}

bool
http_auth_load(void)
{
	char		err[200];
	StringInfoData text;

	jwt_keys_free(keys);
	keys = NULL;
	initStringInfo(&text);
	if (setting_http_jwt_secret[0] != '\0')
		appendStringInfo(&text, "%s\n", setting_http_jwt_secret);
	if (setting_http_jwt_keys_file[0] != '\0' && !read_keys_file(&text))
		return false;
	if (text.len > 0)
	{
		keys = jwt_keys_read((JwtAlgorithm) setting_http_jwt_algorithm, text.data, err, sizeof(err));
		explicit_bzero(text.data, text.len);
		if (keys == NULL)
			return complain(err);
	}
	slot_error_over(trouble);
	return true;
}

/* ---------------------------------------------------------------- refusals */

pg_noreturn static void
refuse_token(const char *code, const char *message, const char *details)
{
	rest_refuse_field("WWW-Authenticate", psprintf("Bearer error=\"invalid_token\", error_description=\"%s\"", message));
	rest_refuse(401, code, message, details, NULL);
}

pg_noreturn static void
refuse_anonymous(void)
{
	rest_refuse_field("WWW-Authenticate", "Bearer");
	rest_refuse(401, "PGRST302", "Anonymous access is disabled", NULL, NULL);
}

/* ---------------------------------------------------------------- the token */

/* The token's header must name the algorithm of the configuration, and want nothing that we do not know. */
static void
check_header(const char *token)
{
	JsonField	fields[] = {{.name = "alg"}, {.name = "crit"}};
	size_t		length;
	char	   *text = jwt_part(token, 0, &length);
	bool		good = text && json_fields_read(text, length, fields, lengthof(fields));
	bool		crit = good && fields[1].there;

	free(text);
	if (!good)
		refuse_token("PGRST301", "JWT cryptographic operation failed", NULL);
	if (fields[0].text == NULL || !fields[0].string || crit ||
		(strcmp(fields[0].text, "HS256") != 0 && strcmp(fields[0].text, "RS256") != 0 && strcmp(fields[0].text, "ES256") != 0))
		refuse_token("PGRST301", "Wrong or unsupported encoding algorithm",
					 fields[0].text && strcmp(fields[0].text, "none") == 0 ? "JWT is unsecured but expected 'alg' was not 'none'" : NULL);
	if (strcmp(fields[0].text, jwt_algorithm_name((JwtAlgorithm) setting_http_jwt_algorithm)) != 0)
		refuse_token("PGRST301", "No suitable key or wrong key type", "No suitable key was found to decode the JWT");
}

/* The claims of a token that is ours. */
static char *
verified_claims(const char *token)
{
	size_t		length;
	char	   *text;
	char	   *claims;

	if (*token == '\0')
		refuse_token("PGRST301", "Empty JWT is sent in Authorization header", NULL);
	if (jwt_parts(token) != 3)
		refuse_token("PGRST301", psprintf("Expected 3 parts in JWT; got %d", jwt_parts(token)), NULL);
	if (keys == NULL)
		rest_refuse(500, "PGRST300", "Server lacks JWT secret", NULL, NULL);
	check_header(token);
	switch (jwt_verify(keys, token))
	{
		case JWT_GOOD:
			break;
		case JWT_BAD_SIGNATURE:
			refuse_token("PGRST301", "No suitable key or wrong key type", "None of the keys was able to decode the JWT");
		case JWT_UNREADABLE:
			refuse_token("PGRST301", "JWT cryptographic operation failed", NULL);
	}
	text = jwt_part(token, 1, &length);
	if (text == NULL)
		refuse_token("PGRST301", "JWT cryptographic operation failed", NULL);
	claims = pnstrdup(text, length);
	free(text);
	return claims;
}

/* ---------------------------------------------------------------- the claims */

/* A member of an object; NULL: there is none, or it is null. */
static JsonbValue *
member(JsonbContainer *object, const char *name, JsonbValue *value)
{
	JsonbValue *found = JsonContainerIsObject(object) ?
	getKeyJsonValueFromContainer(object, name, strlen(name), value) : NULL;

	return found && found->type != jbvNull ? found : NULL;
}

/* A claim that is a time; false: it is not there. */
static bool
time_claim(JsonbContainer *claims, const char *name, double *time)
{
	JsonbValue	value;

	if (member(claims, name, &value) == NULL)
		return false;
	if (value.type != jbvNumeric)
		refuse_token("PGRST303", psprintf("The JWT '%s' claim must be a number", name), NULL);
	*time = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value.val.numeric)));
	return true;
}

static bool
is_audience(const JsonbValue *value)
{
	return setting_http_jwt_audience[0] == '\0' ||
		(value->val.string.len == (int) strlen(setting_http_jwt_audience) &&
		 memcmp(value->val.string.val, setting_http_jwt_audience, value->val.string.len) == 0);
}

/* Whether the token is for us; one without an audience is for everybody. */
static void
check_audience(JsonbContainer *claims)
{
	JsonbValue	value;
	bool		good = true;
	bool		ours = false;

	if (member(claims, "aud", &value) == NULL)
		return;
	if (value.type == jbvString)
		ours = is_audience(&value);
	else if (value.type == jbvBinary && JsonContainerIsArray(value.val.binary.data))
	{
		uint32		n = JsonContainerSize(value.val.binary.data);

		ours = n == 0;
		for (uint32 i = 0; i < n && good; i++)
		{
			JsonbValue *element = getIthJsonbValueFromContainer(value.val.binary.data, i);

			good = element && element->type == jbvString;
			ours = ours || (good && is_audience(element));
		}
	}
	else
		good = false;
	if (!good)
		refuse_token("PGRST303", "The JWT 'aud' claim must be a string or an array of strings", NULL);
	if (!ours)
		refuse_token("PGRST303", "JWT not in audience", NULL);
}

/* The role that the claims name, by the path of msgsys.http_jwt_role_claim (names with dots between); NULL: none. */
static char *
role_claim(JsonbContainer *claims)
{
	char	   *path = pstrdup(setting_http_jwt_role_claim);
	JsonbContainer *object = claims;

	for (;;)
	{
		char	   *dot = strchr(path, '.');
		JsonbValue	value;

		if (dot)
			*dot = '\0';
		if (!JsonContainerIsObject(object) || getKeyJsonValueFromContainer(object, path, strlen(path), &value) == NULL)
			return NULL;
		if (dot == NULL && value.type == jbvString)
			return pnstrdup(value.val.string.val, value.val.string.len);
		/* what is no name is taken for one that nobody has: the token is refused, not let in as the anonymous role */
		if (dot == NULL)
			return JsonbToCString(NULL, &JsonbValueToJsonb(&value)->root, 0);
		if (value.type != jbvBinary)
			return NULL;
		object = value.val.binary.data;
		path = dot + 1;
	}
}

/* The claims as JSON, or NULL where they are not an object of it. */
static Jsonb *
read_claims(const char *text)
{
	Jsonb	   *claims = pg_verifymbstr(text, strlen(text), true) ? rest_try_json(text) : NULL;

	return claims && JB_ROOT_IS_OBJECT(claims) ? claims : NULL;
}

const char *
http_auth_token(const Call *call)
{
	const char *field = call_field(call, "authorization");

	if (field == NULL || pg_strncasecmp(field, "bearer", 6) != 0 || (field[6] != ' ' && field[6] != '\0'))
		return NULL;
	field += 6;
	while (*field == ' ')
		field++;
	return field;
}

/* The claims without a token, or with one that names no role. */
static const char *
claims_with_role(const char *claims, const char *role)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "{\"role\":");
	escape_json(&text, role);
	if (claims == NULL)
		appendStringInfoChar(&text, '}');
	else
	{
		const char *rest = strchr(claims, '{') + 1;

		rest += strspn(rest, " \t\r\n");
		appendStringInfo(&text, "%s%s", *rest == '}' ? "" : ",", rest);
	}
	return text.data;
}

void
http_auth(Call *call)
{
	const char *token = http_auth_token(call);
	double		now = (double) time(NULL);
	double		claimed;
	char	   *text;
	Jsonb	   *claims;

	call->authenticated = false;
	if (token == NULL)
	{
		if (setting_http_anonymous_role[0] == '\0')
			refuse_anonymous();
		call->role = pstrdup(setting_http_anonymous_role);
		call->claims = claims_with_role(NULL, call->role);
		return;
	}
	text = verified_claims(token);
	claims = read_claims(text);
	if (claims == NULL)
		refuse_token("PGRST303", "Parsing claims failed", NULL);
	if (time_claim(&claims->root, "exp", &claimed) && claimed < now - SKEW)
		refuse_token("PGRST303", "JWT expired", NULL);
	if (time_claim(&claims->root, "nbf", &claimed) && claimed > now + SKEW)
		refuse_token("PGRST303", "JWT not yet valid", NULL);
	if (time_claim(&claims->root, "iat", &claimed) && claimed > now + SKEW)
		refuse_token("PGRST303", "JWT issued at future", NULL);
	check_audience(&claims->root);
	call->role = role_claim(&claims->root);
	call->authenticated = call->role != NULL;
	call->claims = text;
	if (call->role == NULL)
	{
		if (setting_http_anonymous_role[0] == '\0')
			refuse_anonymous();
		call->role = pstrdup(setting_http_anonymous_role);
		call->claims = claims_with_role(text, call->role);
	}
}
