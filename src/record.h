/*
 * record.h
 *		A message as a record of the broker: its headers, and how to read them.
 */
#ifndef MSGSYS_RECORD_H
#define MSGSYS_RECORD_H

#include "msgsys.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#include "broker.h"
#include "names.h"
#include "store.h"

/* What a record says of the message that it is. */
typedef struct RecordName
{
	int64		id;
	int32		epoch;
	int			attempt;
	TimestampTz created_at;
} RecordName;

extern void record_build(BrokerRecord *record, const ClaimedRow *row, const char *topic);
extern void record_build_dead(BrokerRecord *record, const ClaimedRow *row, const char *topic);
extern const char *record_source(void);
extern const char *record_time(TimestampTz time);
extern bool record_name(const BrokerMessage *message, RecordName *name);
extern TimestampTz record_written_at(const BrokerMessage *message);
extern char *message_name(int32 epoch, int64 id);
extern const Epoch *message_name_parse(const char *text, size_t length, int64 *id);
extern void record_append_json(StringInfo out, const JsonbValue *value);
extern bool record_header_reserved(const char *name, size_t length);

#endif							/* MSGSYS_RECORD_H */
