/*
 * names.h
 *		Names of messages: which epoch gave an id, and what that epoch is called.
 */
#ifndef MSGSYS_NAMES_H
#define MSGSYS_NAMES_H

#include "msgsys.h"

#include "datatype/timestamp.h"
#include "utils/relcache.h"

#define UUID_LENGTH		36
#define STAMP_ROOM		64

/* An epoch, as a worker knows it. */
typedef struct Epoch
{
	int32		epoch;
	char		uuid[UUID_LENGTH + 1];
	uint64		key[2];			/* of its stamps */
	bool		ours;			/* its messages are to be sent from here */
} Epoch;

/* What a stamp says. */
typedef struct Stamp
{
	int			attempt;
	TimestampTz created_at;
} Stamp;

/* In any session. */
extern Size names_size(void);
extern void names_init(void);
extern void names_forget_sequence(void);
extern int32 names_current(Oid schema);
extern int32 names_begin(Oid schema, const char *why);
extern bool names_take_default(int32 epoch);
extern void names_check_given(Relation messages, int32 epoch, void **state, MemoryContext memory);
extern int32 names_check_default(Relation messages, int32 epoch, int64 id, void **state, MemoryContext memory);

/* In workers, and in msg_test(). */
extern int32 names_load(Oid schema, bool *copy);
extern bool names_stale(void);
extern const Epoch *name_of_epoch(int32 epoch);
extern const Epoch *name_of_uuid(const char *text);
extern bool name_is_ours(int32 epoch);
extern void names_met_unknown(int32 epoch);
extern Datum names_foreign(void);
extern bool names_of_copied(const char *from, int32 timeline);
extern int	stamp_write(char *into, const Epoch *name, int64 id, int attempt, TimestampTz created_at);
extern bool stamp_read(const char *text, size_t length, const Epoch *name, int64 id, Stamp *stamp);

#endif							/* MSGSYS_NAMES_H */
