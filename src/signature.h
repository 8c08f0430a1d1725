/*
 * signature.h
 *		Standard Webhooks 1.0 signatures: secrets, and the header's value.
 */
#ifndef MSGSYS_SIGNATURE_H
#define MSGSYS_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>

#define SIGNATURE_SECRETS_MAX	4
#define SIGNATURE_LENGTH		48	/* "v1," and 44 of base64, a NUL */

/* Whether text is "whsec_" and base64 (padded or not) of 24 to 64 bytes. */
extern bool signature_secret_valid(const char *secret);

/*
 * The value of webhook-signature: one "v1,..." for each secret, separated by
 * blanks: base64 of HMAC-SHA256 over "id.timestamp.body".  value has room for
 * nsecrets * SIGNATURE_LENGTH.  False if a secret cannot be read.
 */
extern bool signature_sign(const char *const *secrets, int nsecrets, const char *id,
						   long timestamp, const void *body, size_t length, char *value);

#endif							/* MSGSYS_SIGNATURE_H */
