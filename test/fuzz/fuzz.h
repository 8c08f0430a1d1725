/*
 * fuzz.h
 *		What the fuzz targets share: properties, inputs of several parts, a replay.
 *
 * A target is a function fuzz_NAME() in NAME.c.  Those of plain C become programs (plain.c);
 * the others run within a real PostgreSQL in single-user mode (backend.c).  A target
 * states what must hold of an answer; a crash is only the crudest thing that it can find.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*FuzzTarget) (const uint8_t *data, size_t size);

/* What must hold; where it does not, that is a finding. */
#define PROPERTY(condition) \
	((condition) ? (void) 0 : fuzz_finding(#condition, __FILE__, __LINE__))

static inline void
fuzz_finding(const char *condition, const char *file, int line)
{
	dprintf(2, "FINDING: %s:%d: %s\n", file, line, condition);
	abort();
}

/* What is left of an input. */
typedef struct FuzzInput
{
	const uint8_t *at;
	const uint8_t *end;
} FuzzInput;

static inline FuzzInput
fuzz_input(const uint8_t *data, size_t size)
{
	FuzzInput	input = {data, data + size};

	return input;
}

/* The next byte; 0 at the end. */
static inline int
fuzz_byte(FuzzInput *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

/* A copy of a text, of exactly its size, so that a sanitizer sees what goes beyond. */
static inline char *
fuzz_copy(const uint8_t *from, size_t length)
{
	char	   *copy = (malloc) (length + 1);

	if (copy == NULL)
		abort();
	if (length > 0)
		memcpy(copy, from, length);
	copy[length] = '\0';
	return copy;
}

/* The next line without its end, a C string that is the caller's to free; empty at the end. */
static inline char *
fuzz_line(FuzzInput *input)
{
	const uint8_t *begin = input->at;

	while (input->at < input->end && *input->at != '\n')
		input->at++;
	return fuzz_copy(begin, (size_t) ((input->at < input->end ? input->at++ : input->at) - begin));
}

/* All that is left, the same way. */
static inline char *
fuzz_rest(FuzzInput *input)
{
	const uint8_t *begin = input->at;

	input->at = input->end;
	return fuzz_copy(begin, (size_t) (input->end - begin));
}

/* Run a target over each file of a folder, naming each before; returns how many. */
extern int	fuzz_replay(const char *name, const char *folder, FuzzTarget target);

#endif							/* FUZZ_H */
