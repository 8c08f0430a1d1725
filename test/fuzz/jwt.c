/*
 * jwt.c
 *		Fuzzes JSON Web Tokens and their keys (src/jwt.c).
 *
 * A token that was signed here is good, and any other spelling of it is not; what a part is
 * decoded to has one spelling; nothing that a stranger writes is good under keys that he has
 * not.  The first byte says what the rest is: a token, what is signed, or keys.
 */
#include "jwt.h"

#include <openssl/hmac.h>

#include "fuzz.h"
#include "jwt_keys.h"

extern int	fuzz_jwt(const uint8_t *data, size_t size);

#define SECRET	"a secret of tests, of 32 bytes or more"

static JwtKeys *keys[3];

static void
read_keys(void)
{
	char		err[200];

	keys[JWT_HS256] = jwt_keys_read(JWT_HS256, SECRET "\n", err, sizeof(err));
	keys[JWT_RS256] = jwt_keys_read(JWT_RS256, RSA_KEY, err, sizeof(err));
	keys[JWT_ES256] = jwt_keys_read(JWT_ES256, EC_KEY_P256, err, sizeof(err));
	PROPERTY(keys[0] && keys[1] && keys[2]);
}

/* Write bytes as base64url without padding; returns the length. */
static size_t
encode(char *out, const unsigned char *bytes, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t	bits = 0;
	int			nbits = 0;
	size_t		length = 0;

	for (size_t i = 0; i < n; i++)
	{
		bits = bits << 8 | bytes[i];
		for (nbits += 8; nbits >= 6; nbits -= 6)
			out[length++] = digits[bits >> (nbits - 6) & 63];
	}
	if (nbits > 0)
		out[length++] = digits[bits << (6 - nbits) & 63];
	out[length] = '\0';
	return length;
}

/* A stranger's token. */
static void
check_token(const char *token)
{
	int			parts = jwt_parts(token);

	PROPERTY(parts >= 1);
	if (parts != 3)
		return;
	for (int i = 0; i < 3; i++)
	{
		size_t		length;
		char	   *text = jwt_part(token, i, &length);
		const char *begin = token;
		char	   *again;

		for (int k = 0; k < i; k++)
			begin = strchr(begin, '.') + 1;
		if (text == NULL)
			continue;
		again = malloc(length * 2 + 8);
		PROPERTY(text[length] == '\0');
		PROPERTY(encode(again, (unsigned char *) text, length) == strcspn(begin, ".") && strncmp(again, begin, strlen(again)) == 0);
		free(again);
		free(text);
	}
	for (int i = 0; i < 3; i++)
		PROPERTY(jwt_verify(keys[i], token) != JWT_GOOD);
}

/* A good token is not good with any other character at a place. */
static void
check_changed(char *token, size_t at)
{
	char		was = token[at];

	for (int c = '-'; was != '.' && c <= 'z'; c++)
		if (c != was && c != '.')
		{
			token[at] = (char) c;
			PROPERTY(jwt_verify(keys[JWT_HS256], token) != JWT_GOOD);
		}
	token[at] = was;
}

/* What is signed here is good, and what differs in one character is not. */
static void
check_signed(const uint8_t *data, size_t size)
{
	char	   *token = malloc(size * 2 + 200);
	size_t		half = size / 2;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	size_t		length = encode(token, data, half);
	size_t		at;

	token[length++] = '.';
	length += encode(token + length, data + half, size - half);
	HMAC(EVP_sha256(), SECRET, (int) strlen(SECRET), (unsigned char *) token, length, digest, &n);
	token[length++] = '.';
	length += encode(token + length, digest, n);
	PROPERTY(jwt_parts(token) == 3);
	PROPERTY(jwt_verify(keys[JWT_HS256], token) == JWT_GOOD);
	PROPERTY(jwt_verify(keys[JWT_RS256], token) != JWT_GOOD && jwt_verify(keys[JWT_ES256], token) != JWT_GOOD);
	at = size > 0 ? (data[0] * 256 + data[size - 1]) % length : 0;
	check_changed(token, at);
	/* the last character has bits that are of no byte */
	check_changed(token, length - 1);
	free(token);
}

int
fuzz_jwt(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	int			what = fuzz_byte(&input);
	char	   *text = fuzz_copy(input.at, (size_t) (input.end - input.at));

	if (keys[0] == NULL)
		read_keys();
	if (what % 5 == 0)
		check_token(text);
	else if (what % 5 == 1)
		check_signed(input.at, (size_t) (input.end - input.at));
	else
	{
		char		err[200] = "";
		JwtKeys    *read = jwt_keys_read((JwtAlgorithm) (what % 5 - 2), text, err, sizeof(err));

		PROPERTY((read != NULL) == (err[0] == '\0') && strlen(err) < sizeof(err));
		jwt_keys_free(read);
	}
	free(text);
	return 0;
}
