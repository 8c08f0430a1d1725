/*
 * signature.c
 *		Standard Webhooks 1.0 signatures, by OpenSSL.
 */
#include "signature.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define SECRET_PREFIX		"whsec_"
#define SECRET_SHORTEST		24
#define SECRET_LONGEST		64
#define KEY_MAX				192 /* what is signed with may be odd, but not endless */
#define DIGEST_LENGTH		32
#define TIMESTAMP_ROOM		24	/* ".timestamp.", a NUL */

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

bool
signature_sign(const char *const *secrets, int nsecrets, const char *id, long timestamp,
			   const void *body, size_t length, char *value)
{
	size_t		room = strlen(id) + TIMESTAMP_ROOM + length;
	unsigned char *content = malloc(room);
	char	   *end = value;
	int			prefix;
	int			i;

	*value = '\0';
	if (content == NULL)
		return false;

	/* in one piece, because OpenSSL 3 takes ten times as long to set up a stream */
	prefix = snprintf((char *) content, room, "%s.%ld.", id, timestamp);
	if (length > 0)
		memcpy(content + prefix, body, length);
	for (i = 0; i < nsecrets; i++)
	{
		unsigned char key[KEY_MAX];
		unsigned char digest[EVP_MAX_MD_SIZE];
		unsigned int digest_length = 0;
		int			key_length = read_secret(secrets[i], key);
		bool		done = key_length > 0 &&
		HMAC(EVP_sha256(), key, key_length, content, (size_t) prefix + length,
			 digest, &digest_length) != NULL;

		OPENSSL_cleanse(key, sizeof(key));
		if (!done || digest_length != DIGEST_LENGTH)
			break;
		if (i > 0)
			*end++ = ' ';
		memcpy(end, "v1,", 3);
		end += 3 + EVP_EncodeBlock((unsigned char *) end + 3, digest, DIGEST_LENGTH);
	}
	free(content);
	if (i < nsecrets)
		*value = '\0';
	return nsecrets > 0 && i == nsecrets;
}
