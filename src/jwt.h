/*
 * jwt.h
 *		JSON Web Tokens (RFC 7519) in their compact form: parts, and signatures by OpenSSL.
 *
 * Plain C.  The algorithm is the configuration's, never the token's.
 */
#ifndef MSGSYS_JWT_H
#define MSGSYS_JWT_H

#include <stdbool.h>
#include <stddef.h>

#define JWT_SECRET_SHORTEST		32	/* bytes, as PostgREST wants it too */
#define JWT_KEYS_MAX			16

typedef enum JwtAlgorithm
{
	JWT_HS256,
	JWT_RS256,
	JWT_ES256
} JwtAlgorithm;

typedef struct JwtKeys JwtKeys;

/* Whether a signature is right. */
typedef enum JwtVerdict
{
	JWT_GOOD,
	JWT_BAD_SIGNATURE,			/* no key made it */
	JWT_UNREADABLE				/* a part is not base64url */
} JwtVerdict;

/* The name of an algorithm, as in a token's header. */
extern const char *jwt_algorithm_name(JwtAlgorithm algorithm);

/*
 * Keys that all count: for HS256 a secret a line, for the others public keys in PEM.
 * NULL with words in err if one is no such key, or too short, or there is none.
 */
extern JwtKeys *jwt_keys_read(JwtAlgorithm algorithm, const char *text, char *err, size_t errlen);

extern void jwt_keys_free(JwtKeys *keys);

/* How many parts a token has; 3 in a good one. */
extern int	jwt_parts(const char *token);

/* The text of a part (0 header, 1 claims), by malloc, a NUL behind it; NULL if it is not base64url. */
extern char *jwt_part(const char *token, int part, size_t *length);

/* Whether one of the keys has signed the token, which has three parts. */
extern JwtVerdict jwt_verify(const JwtKeys *keys, const char *token);

#endif							/* MSGSYS_JWT_H */
