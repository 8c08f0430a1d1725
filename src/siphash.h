/*
 * siphash.h
 *		SipHash-2-4 of whole words: a keyed hash for short inputs, as Aumasson and
 *		Bernstein describe it.
 */
#ifndef MSGSYS_SIPHASH_H
#define MSGSYS_SIPHASH_H

#include <stdint.h>

#define SIPHASH_KEY_BYTES	16

#define SIPHASH_ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

static inline void
siphash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = SIPHASH_ROTATE(v[1], 13) ^ v[0];
	v[0] = SIPHASH_ROTATE(v[0], 32);
	v[2] += v[3];
	v[3] = SIPHASH_ROTATE(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = SIPHASH_ROTATE(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = SIPHASH_ROTATE(v[1], 17) ^ v[2];
	v[2] = SIPHASH_ROTATE(v[2], 32);
}

/* Eight bytes, the lowest first. */
static inline uint64_t
siphash_word(const unsigned char *bytes)
{
	uint64_t	word = 0;

	for (int i = 7; i >= 0; i--)
		word = word << 8 | bytes[i];
	return word;
}

/* The hash of so many words, which stand for eight bytes each, the lowest first. */
static inline uint64_t
siphash_words(const uint64_t key[2], const uint64_t * words, int n)
{
	uint64_t	v[4] = {
		key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
		key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)
	};

	for (int i = 0; i <= n; i++)
	{
		uint64_t	word = i < n ? words[i] : (uint64_t) n * 8 << 56;

		v[3] ^= word;
		siphash_round(v);
		siphash_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif							/* MSGSYS_SIPHASH_H */
