/*
 * jwt.c
 *		JSON Web Tokens: parts, and signatures by OpenSSL (RFC 7515, RFC 7518).
 */
#include "jwt.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/obj_mac.h>
#include <openssl/pem.h>

#include "explain.h"

#define RSA_BITS_LEAST	2048
#define PEM_BEGIN		"-----BEGIN "
#define ES256_HALF		32		/* bytes of r, and of s */

typedef struct Key
{
	unsigned char *secret;		/* of HS256 */
	size_t		length;
	EVP_PKEY   *public_key;		/* of the others */
} Key;

struct JwtKeys
{
	JwtAlgorithm algorithm;
	Key			keys[JWT_KEYS_MAX];
	int			n;
};

const char *
jwt_algorithm_name(JwtAlgorithm algorithm)
{
	switch (algorithm)
	{
		case JWT_HS256:
			return "HS256";
		case JWT_RS256:
			return "RS256";
		case JWT_ES256:
			return "ES256";
	}
	return "";
}

/* ---------------------------------------------------------------- keys */

/* A secret a line; a carriage return before its end is not part of it. */
static bool
read_secrets(JwtKeys *keys, const char *text, char *err, size_t errlen)
{
	while (*text)
	{
		size_t		line = strcspn(text, "\n");
		size_t		length = line > 0 && text[line - 1] == '\r' ? line - 1 : line;

		if (length > 0)
		{
			Key		   *key = &keys->keys[keys->n];

			/* what others are given to verify with is no secret */
			if (memmem(text, length, "\"kty\"", 5) != NULL)
				return explain(err, errlen, "a secret is a JSON Web Key, which is not read");
			if (length < JWT_SECRET_SHORTEST)
				return explain(err, errlen, "a secret is shorter than %d bytes", JWT_SECRET_SHORTEST);
			if (keys->n == JWT_KEYS_MAX)
				return explain(err, errlen, "there are more than %d keys", JWT_KEYS_MAX);
			key->secret = malloc(length);
			if (key->secret == NULL)
				return explain(err, errlen, "out of memory");
			memcpy(key->secret, text, length);
			key->length = length;
			keys->n++;
		}
		text += line + (text[line] == '\n');
	}
	return true;
}

/* Whether a key of elliptic curves is of the one that ES256 means; others have 256 bits too. */
static bool
is_p256(EVP_PKEY *key)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	char		name[64];
	size_t		length;

	return EVP_PKEY_get_group_name(key, name, sizeof(name), &length) == 1 && strcmp(name, SN_X9_62_prime256v1) == 0;
#else
	const EC_KEY *curve = EVP_PKEY_get0_EC_KEY(key);

	return curve && EC_GROUP_get_curve_name(EC_KEY_get0_group(curve)) == NID_X9_62_prime256v1;
#endif
}

/* Whether a public key is of the algorithm's kind, and not too weak. */
static bool
key_fits(JwtAlgorithm algorithm, EVP_PKEY *key, char *err, size_t errlen)
{
	if (algorithm == JWT_RS256 && EVP_PKEY_base_id(key) != EVP_PKEY_RSA)
		return explain(err, errlen, "a key is not an RSA key");
	if (algorithm == JWT_RS256 && EVP_PKEY_bits(key) < RSA_BITS_LEAST)
		return explain(err, errlen, "an RSA key has less than %d bits", RSA_BITS_LEAST);
	if (algorithm == JWT_ES256 && (EVP_PKEY_base_id(key) != EVP_PKEY_EC || !is_p256(key)))
		return explain(err, errlen, "a key is not of the curve P-256");
	return true;
}

static bool
read_public_keys(JwtKeys *keys, const char *text, char *err, size_t errlen)
{
	BIO		   *bio = BIO_new_mem_buf(text, -1);
	EVP_PKEY   *key;
	bool		fits = true;
	int			nblocks = 0;

	if (bio == NULL)
		return explain(err, errlen, "out of memory");
	/* a password, or OpenSSL would ask a terminal for that of a key that is encrypted, and wait */
	while (fits && (key = PEM_read_bio_PUBKEY(bio, NULL, NULL, (void *) "")) != NULL)
	{
		fits = key_fits(keys->algorithm, key, err, errlen) &&
			(keys->n < JWT_KEYS_MAX || explain(err, errlen, "there are more than %d keys", JWT_KEYS_MAX));
		if (fits)
			keys->keys[keys->n++].public_key = key;
		else
			EVP_PKEY_free(key);
	}
	ERR_clear_error();
	BIO_free(bio);

	/* it steps over what it cannot read, or is something else */
	for (const char *c = text; (c = strstr(c, PEM_BEGIN)) != NULL; c += strlen(PEM_BEGIN))
		nblocks++;
	if (fits && keys->n > 0 && keys->n < nblocks)
		return explain(err, errlen, "of %d keys only %d can be read as a public key (PEM)", nblocks, keys->n);
	return fits;
}

JwtKeys *
jwt_keys_read(JwtAlgorithm algorithm, const char *text, char *err, size_t errlen)
{
	JwtKeys    *keys = calloc(1, sizeof(JwtKeys));
	bool		good;

	if (keys == NULL)
	{
		explain(err, errlen, "out of memory");
		return NULL;
	}
	keys->algorithm = algorithm;
	good = algorithm == JWT_HS256 ? read_secrets(keys, text, err, errlen) : read_public_keys(keys, text, err, errlen);
	if (good && keys->n == 0)
		good = explain(err, errlen, "there is no %s in it", algorithm == JWT_HS256 ? "secret" : "public key (PEM)");
	if (good)
		return keys;
	jwt_keys_free(keys);
	return NULL;
}

void
jwt_keys_free(JwtKeys *keys)
{
	if (keys == NULL)
		return;
	for (int i = 0; i < keys->n; i++)
	{
		if (keys->keys[i].secret)
			OPENSSL_cleanse(keys->keys[i].secret, keys->keys[i].length);
		free(keys->keys[i].secret);
		EVP_PKEY_free(keys->keys[i].public_key);
	}
	free(keys);
}

/* ---------------------------------------------------------------- parts */

int
jwt_parts(const char *token)
{
	int			n = 1;

	for (; *token; token++)
		n += *token == '.';
	return n;
}

/* The value of a character of base64url (RFC 4648, 5), or -1. */
static int
digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Decode base64url without padding; the number of bytes, or -1. */
static long
decode(const char *text, size_t length, unsigned char *bytes)
{
	uint32_t	bits = 0;
	int			nbits = 0;
	long		n = 0;

	if (length % 4 == 1)
		return -1;
	for (size_t i = 0; i < length; i++)
	{
		int			value = digit(text[i]);

		if (value < 0)
			return -1;
		bits = (bits << 6 | (uint32_t) value) & 0xFFFFFF;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			bytes[n++] = (unsigned char) (bits >> nbits);
		}
	}
	/* what is left over must be nothing, or a signature would have several spellings */
	return (bits & ((1u << nbits) - 1)) == 0 ? n : -1;
}

/* Where a part begins and how long it is. */
static const char *
find_part(const char *token, int part, size_t *length)
{
	while (part-- > 0)
		token = strchr(token, '.') + 1;
	*length = strcspn(token, ".");
	return token;
}

char *
jwt_part(const char *token, int part, size_t *length)
{
	size_t		encoded;
	const char *begin = find_part(token, part, &encoded);
	unsigned char *bytes = malloc(encoded + 1);
	long		n = bytes ? decode(begin, encoded, bytes) : -1;

	if (n < 0)
	{
		free(bytes);
		return NULL;
	}
	bytes[n] = '\0';
	*length = (size_t) n;
	return (char *) bytes;
}

/* ---------------------------------------------------------------- signatures */

static bool
verify_hmac(const Key *key, const char *text, size_t length, const unsigned char *signature, long n)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int digest_length = 0;

	return HMAC(EVP_sha256(), key->secret, (int) key->length, (const unsigned char *) text, length, digest, &digest_length) != NULL &&
		n == (long) digest_length && CRYPTO_memcmp(digest, signature, digest_length) == 0;
}

/* The signature of ES256 is r and s one after the other (RFC 7518, 3.4); OpenSSL wants them in DER. */
static int
to_der(const unsigned char *signature, long n, unsigned char **der)
{
	ECDSA_SIG  *pair;
	BIGNUM	   *r;
	BIGNUM	   *s;
	int			length = -1;

	*der = NULL;
	if (n != 2 * ES256_HALF)
		return -1;
	pair = ECDSA_SIG_new();
	r = BN_bin2bn(signature, ES256_HALF, NULL);
	s = BN_bin2bn(signature + ES256_HALF, ES256_HALF, NULL);
	if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1)
		length = i2d_ECDSA_SIG(pair, der);
	else
	{
		BN_free(r);
		BN_free(s);
	}
	ECDSA_SIG_free(pair);
	return length;
}

static bool
verify_public(JwtAlgorithm algorithm, const Key *key, const char *text, size_t length, const unsigned char *signature, long n)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned char *der = NULL;
	bool		good = false;

	if (algorithm == JWT_ES256)
	{
		n = to_der(signature, n, &der);
		signature = der;
	}
	if (context && n > 0)
		good = EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key->public_key) == 1 &&
			EVP_DigestVerify(context, signature, (size_t) n, (const unsigned char *) text, length) == 1;
	OPENSSL_free(der);
	EVP_MD_CTX_free(context);
	ERR_clear_error();
	return good;
}

JwtVerdict
jwt_verify(const JwtKeys *keys, const char *token)
{
	size_t		encoded;
	const char *last = find_part(token, 2, &encoded);
	size_t		signed_length = last - 1 - token;
	size_t		n;
	unsigned char *signature = (unsigned char *) jwt_part(token, 2, &n);
	bool		good = false;

	if (signature == NULL)
		return JWT_UNREADABLE;
	for (int i = 0; i < keys->n && !good; i++)
		if (keys->algorithm == JWT_HS256)
			good = verify_hmac(&keys->keys[i], token, signed_length, signature, (long) n);
		else
			good = verify_public(keys->algorithm, &keys->keys[i], token, signed_length, signature, (long) n);
	free(signature);
	return good ? JWT_GOOD : JWT_BAD_SIGNATURE;
}
