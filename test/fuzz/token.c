/*
 * token.c
 *		Fuzzes the claims of tokens that are ours (src/http_auth.c).
 *
 * Whatever a signed token claims, the role is the one that it names, or that of who has none; the
 * claims are JSON with that role; one that has expired counts for nobody.
 */
#include "backend.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <time.h>

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "http_auth.h"
#include "rest_error.h"

extern int	fuzz_token(const uint8_t *data, size_t size);

#define SECRET	"a secret of tests, of 32 bytes or more"

/* Add bytes as base64url. */
static void
encode(StringInfo out, const unsigned char *bytes, size_t length)
{
	char	   *code = palloc(length * 4 / 3 + 5);

	EVP_EncodeBlock((unsigned char *) code, bytes, (int) length);
	for (char *c = code; *c && *c != '='; c++)
		appendStringInfoChar(out, *c == '+' ? '-' : *c == '/' ? '_' : *c);
}

/* A token with a header and claims, signed. */
static char *
signed_token(const char *header, const uint8_t *claims, size_t length)
{
	StringInfoData token;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	initStringInfo(&token);
	encode(&token, (const unsigned char *) header, strlen(header));
	appendStringInfoChar(&token, '.');
	encode(&token, claims, length);
	HMAC(EVP_sha256(), SECRET, (int) strlen(SECRET), (unsigned char *) token.data, token.len, digest, &n);
	appendStringInfoChar(&token, '.');
	encode(&token, digest, n);
	return token.data;
}

/* The member of the claims; NULL: none. */
static JsonbValue *
claim(Jsonb *claims, const char *name)
{
	return getKeyJsonValueFromContainer(&claims->root, name, strlen(name), NULL);
}

static void
authenticate(void *arg)
{
	Call	   *call = arg;
	Jsonb	   *claims;
	JsonbValue *role;
	JsonbValue *exp;

	http_auth(call);
	PROPERTY(call->role != NULL && call->claims != NULL);
	claims = rest_try_json(call->claims);
	PROPERTY(claims != NULL && JB_ROOT_IS_OBJECT(claims));
	role = claim(claims, "role");
	PROPERTY(role != NULL);
	if (!call->authenticated || role->type == jbvString)
		PROPERTY(role->type == jbvString && strlen(call->role) == role->val.string.len &&
				 memcmp(role->val.string.val, call->role, role->val.string.len) == 0);
	PROPERTY(call->authenticated || strcmp(call->role, "nobody") == 0);
	exp = claim(claims, "exp");
	if (exp && exp->type == jbvNumeric)
	{
		double		time_of = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(exp->val.numeric)));

		PROPERTY(time_of >= (double) time(NULL) - 31);
	}
	else
		PROPERTY(exp == NULL || exp->type == jbvNull);
}

int
fuzz_token(const uint8_t *data, size_t size)
{
	static bool ready = false;
	FuzzInput	input = fuzz_input(data, size);
	FuzzInput	none = {0};
	char	   *header = fuzz_line(&input);
	Call	   *call;
	HttpField	field = {"Authorization", NULL};

	if (!ready)
	{
		setting_http_jwt_secret = SECRET;
		setting_http_anonymous_role = "nobody";
		setting_http_jwt_audience = "us";
		PROPERTY(http_auth_load());
		ready = true;
	}
	rest_error_reset();
	call = fuzz_call(&none, "", 0);
	field.value = psprintf("Bearer %s", signed_token(*header ? header : "{\"alg\":\"HS256\"}", input.at, (size_t) (input.end - input.at)));
	((HttpExchange *) call->http)->fields = &field;
	((HttpExchange *) call->http)->nfields = 1;
	(void) fuzz_try(authenticate, call);
	rest_error_reset();
	(free) (header);
	return 0;
}
