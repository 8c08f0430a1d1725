/*
 * ack.c
 *		Reading what a consumer writes to the acknowledgement topic:
 *		{"id": "<ce_id>", "status": "received" | "delivered" | "failed",
 *		 "attempt": <msgsys-attempt>, "error": "...", "token": "<msgsys-stamp>"}
 *
 * Anyone may write there, so nothing in it may raise an error (json_fields.c).  The token
 * proves that who answers has seen the record; it names the attempt, too.
 */
#include "msgsys.h"

#include "ack.h"
#include "json_fields.h"
#include "record.h"

#define LONGEST_ACK		65536

/* The outcome of this name. */
bool
ack_outcome(const char *name, AckOutcome *outcome)
{
	static const char *const names[] = {
		[ACK_RECEIVED] = "received",
		[ACK_DELIVERED] = "delivered",
		[ACK_FAILED] = "failed"
	};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
		{
			*outcome = i;
			return true;
		}
	return false;
}

/*
 * Read an acknowledgement.  The error's text is in the current memory context.
 */
AckReading
ack_parse(const char *text, size_t length, Ack *ack)
{
	JsonField	fields[] = {{"id"}, {"status"}, {"error"}, {"attempt"}, {"token"}};
	const JsonField *id = &fields[0];
	const JsonField *status = &fields[1];
	const JsonField *error = &fields[2];
	const JsonField *attempt = &fields[3];
	const JsonField *token = &fields[4];
	const Epoch *name;
	Stamp		stamp;

	if (length > LONGEST_ACK || !json_fields_read(text, length, fields, lengthof(fields)) ||
		!id->string || !status->string)
		return ACK_UNREADABLE;
	name = message_name_parse(id->text, strlen(id->text), &ack->id);
	if (name == NULL)
		return strchr(id->text, ':') ? ACK_NOT_OURS : ACK_UNREADABLE;
	if (!ack_outcome(status->text, &ack->outcome))
		return ACK_UNREADABLE;
	ack->attempt = 0;
	if (attempt->text)
	{
		char	   *end;
		long		number = strtol(attempt->text, &end, 10);

		if (!(attempt->string || attempt->number) || *end != '\0' || number < 0 || number > PG_INT32_MAX)
			return ACK_UNREADABLE;
		ack->attempt = (int) number;
	}
	if (token->text)
	{
		if (!token->string || !stamp_read(token->text, strlen(token->text), name, ack->id, &stamp) ||
			(ack->attempt > 0 && ack->attempt != stamp.attempt))
			return ACK_FORGED;
		ack->attempt = stamp.attempt;
	}
	else if (setting_ack_token)
		return ACK_FORGED;
	ack->epoch = name->epoch;
	ack->error = error->string ? presentable(error->text, strlen(error->text), LONGEST_ERROR) : NULL;
	return ACK_READ;
}
