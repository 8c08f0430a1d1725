/*
 * arena.h
 *		Memory for parsers that take an allocator and free nothing: each piece of exactly its
 *		size, all freed at once, and counted.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stdlib.h>

typedef struct ArenaPiece
{
	struct ArenaPiece *next;
	void	   *memory;
} ArenaPiece;

static ArenaPiece *arena_pieces = NULL;
static size_t arena_size = 0;	/* bytes, since the latest arena_reset() */

static inline void *
arena_alloc(size_t size)
{
	ArenaPiece *piece = malloc(sizeof(ArenaPiece));

	if (piece == NULL || (piece->memory = malloc(size ? size : 1)) == NULL)
		abort();
	piece->next = arena_pieces;
	arena_pieces = piece;
	arena_size += size;
	return piece->memory;
}

static inline void
arena_reset(void)
{
	while (arena_pieces)
	{
		ArenaPiece *piece = arena_pieces;

		arena_pieces = piece->next;
		free(piece->memory);
		free(piece);
	}
	arena_size = 0;
}

#endif							/* ARENA_H */
