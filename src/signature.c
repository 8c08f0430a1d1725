/*
 * signature.c
 *		Standard Webhooks 1.0 signatures, by OpenSSL.
 */
#include "signature.h"

#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define SECRET_PREFIX		"whsec_"
#define SECRET_SHORTEST		24
#define SECRET_LONGEST		64
#define KEY_MAX				192		/* what is signed with may be odd, but not endless */
#define DIGEST_LENGTH		32
#define CONTENT_PREFIX_MAX	24		/* ".timestamp." */

/* The key of a secret; returns its length, or 0 if it cannot be read. */
static int
read_secret(const char *secret, unsigned char *key)
{
	static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char padded[KEY_MAX / 3 * 4 + 1];
	size_t		length;
	size_t		digits;
	int			decoded;

	if (secret == NULL || strncmp(secret, SECRET_PREFIX, strlen(SECRET_PREFIX)) != 0)
		return 0;
	secret += strlen(SECRET_PREFIX);
	length = strlen(secret);
	digits = strspn(secret, alphabet);

	/* 4 digits are 3 bytes; of the last 4, up to two may be padding or absent */
	if (digits == 0 || digits % 4 == 1 || digits >= sizeof(padded) - 3)
		return 0;
	if (digits < length && (length % 4 != 0 || length - digits > 2 ||
							strspn(secret + digits, "=") != length - digits))
		return 0;
	memcpy(padded, secret, digits);
	for (length = digits; length % 4 != 0; length++)
		padded[length] = '=';
	decoded = EVP_DecodeBlock(key, padded, (int) length);
	OPENSSL_cleanse(padded, sizeof(padded));
	return decoded < 0 ? 0 : decoded - (int) (length - digits);
}

bool
signature_secret_valid(const char *secret)
{
	unsigned char key[KEY_MAX];
	int			length = read_secret(secret, key);

	OPENSSL_cleanse(key, sizeof(key));
	return length >= SECRET_SHORTEST && length <= SECRET_LONGEST;
}

/* HMAC-SHA256 over "id" "prefix" "body"; works with OpenSSL 1.1.1 and 3. */
static bool
digest(const unsigned char *key, int key_length, const char *id, const char *prefix,
	   const void *body, size_t length, unsigned char *value)
{
	size_t		value_length = DIGEST_LENGTH;
	EVP_PKEY   *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key, (size_t) key_length);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		done = pkey && context &&
		EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, pkey) == 1 &&
		EVP_DigestSignUpdate(context, id, strlen(id)) == 1 &&
		EVP_DigestSignUpdate(context, prefix, strlen(prefix)) == 1 &&
		EVP_DigestSignUpdate(context, body, length) == 1 &&
		EVP_DigestSignFinal(context, value, &value_length) == 1;

	EVP_MD_CTX_free(context);
	EVP_PKEY_free(pkey);
	return done && value_length == DIGEST_LENGTH;
}

bool
signature_sign(const char *const *secrets, int nsecrets, const char *id, long timestamp,
			   const void *body, size_t length, char *value)
{
	char		prefix[CONTENT_PREFIX_MAX];
	char	   *end = value;

	snprintf(prefix, sizeof(prefix), ".%ld.", timestamp);
	*value = '\0';
	for (int i = 0; i < nsecrets; i++)
	{
		unsigned char key[KEY_MAX];
		unsigned char bytes[DIGEST_LENGTH];
		int			key_length = read_secret(secrets[i], key);
		bool		done = key_length > 0 &&
			digest(key, key_length, id, prefix, length > 0 ? body : "", length, bytes);

		OPENSSL_cleanse(key, sizeof(key));
		if (!done)
		{
			*value = '\0';
			return false;
		}
		if (i > 0)
			*end++ = ' ';
		memcpy(end, "v1,", 3);
		end += 3 + EVP_EncodeBlock((unsigned char *) end + 3, bytes, DIGEST_LENGTH);
	}
	return nsecrets > 0;
}
