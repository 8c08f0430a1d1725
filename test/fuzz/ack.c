/*
 * ack.c
 *		Fuzzes what consumers write into the acknowledgement topic (src/ack.c, src/json_fields.c, and the
 *		stamps of src/names.c).
 *
 * What is read has an id, an attempt and an error within their bounds, is read the same when it is
 * written out again, and, where a token is asked for, has one; no text raises an error.
 */
#include "../../src/names.c"	/* for names that no table has */

#include "backend.h"

#include "ack.h"
#include "json_fields.h"
#include "record.h"
#include "utils/json.h"

extern int	fuzz_ack(const uint8_t *data, size_t size);

void
fuzz_names(void)
{
	static Epoch known[] = {
		{.epoch = FUZZ_EPOCH,.uuid = FUZZ_UUID,.key = {1, 2},.ours = true},
		{.epoch = 2,.uuid = FUZZ_FOREIGN,.key = {3, 4},.ours = false}
	};

	names = known;
	nnames = lengthof(known);
}

static void
check_read(const Ack *ack)
{
	static const char *const outcomes[] = {[ACK_RECEIVED] = "received",[ACK_DELIVERED] = "delivered",[ACK_FAILED] = "failed"};
	StringInfoData out;
	Ack			again;

	PROPERTY(ack->id > 0 && ack->epoch == FUZZ_EPOCH && ack->attempt >= 0);
	PROPERTY(ack->error == NULL || fuzz_presentable(ack->error, LONGEST_ERROR));
	initStringInfo(&out);
	appendStringInfo(&out, "{\"id\": \"%s\", \"status\": \"%s\"", message_name(ack->epoch, ack->id), outcomes[ack->outcome]);
	if (ack->attempt > 0)
		appendStringInfo(&out, ", \"attempt\": %d", ack->attempt);
	if (ack->error)
	{
		appendStringInfoString(&out, ", \"error\": ");
		escape_json(&out, ack->error);
	}
	appendStringInfoString(&out, ", \"more\": {\"id\": [1, {\"id\": 2}]}}");
	PROPERTY(ack_parse(out.data, out.len, &again) == ACK_READ);
	PROPERTY(again.id == ack->id && again.outcome == ack->outcome && again.attempt == ack->attempt);
	PROPERTY((again.error == NULL) == (ack->error == NULL) && (ack->error == NULL || strcmp(again.error, ack->error) == 0));
}

/* Any bytes, as the database can store them. */
static void
check_presentable(const uint8_t *data, size_t size)
{
	char	   *shown = presentable((const char *) data, size, 100);
	char	   *again = presentable(shown, strlen(shown), 100);

	PROPERTY(fuzz_presentable(shown, 100));
	PROPERTY(strcmp(shown, again) == 0);
}

int
fuzz_ack(const uint8_t *data, size_t size)
{
	JsonField	token = {"token"};
	AckReading	reading;
	Ack			ack;

	check_presentable(data, size);
	setting_ack_token = false;
	reading = ack_parse((const char *) data, size, &ack);
	PROPERTY(reading >= ACK_READ && reading <= ACK_UNREADABLE);
	if (reading == ACK_READ)
		check_read(&ack);

	setting_ack_token = true;
	if (ack_parse((const char *) data, size, &ack) == ACK_READ)
	{
		PROPERTY(reading == ACK_READ && ack.attempt > 0);
		PROPERTY(json_fields_read((const char *) data, size, &token, 1) && token.string);
	}
	setting_ack_token = false;
	return 0;
}
