/*
 * record.c
 *		Fuzzes the records that are read back: their headers, and their time (src/record.c, src/names.c).
 *
 * A record is named by headers that prove it, or not at all: one whose stamp was made here is read as
 * what it was made of, and as nothing else.  Lines "name=value" are headers; a stamp that is
 * "@attempt.created_at" stands for the right one of the id before it, and one with more behind that is changed by it.
 */
#include "backend.h"

#include "names.h"
#include "record.h"
#include "utils/timestamp.h"

extern int	fuzz_record(const uint8_t *data, size_t size);

#define HEADERS_MAX	16

typedef struct Header
{
	char	   *name;
	char	   *value;
	size_t		length;
} Header;

static Header headers[HEADERS_MAX];
static int	nheaders;
static bool stamped;			/* the last stamp is a right one */

/* In place of kafka.c's: the last header of that name. */
bool
broker_header(const BrokerMessage *message, const char *name, const void **value, size_t *length)
{
	for (int i = nheaders - 1; i >= 0; i--)
		if (strcmp(headers[i].name, name) == 0)
		{
			*value = headers[i].value;
			*length = headers[i].length;
			return true;
		}
	return false;
}

/* A stamp of the id that the headers have. */
static void
make_stamp(Header *header, RecordName *name)
{
	char	   *end;
	const Epoch *of = NULL;
	char		stamp[STAMP_ROOM];

	for (int i = 0; i < nheaders; i++)
		if (strcmp(headers[i].name, "ce_id") == 0)
			of = message_name_parse(headers[i].value, headers[i].length, &name->id);
	name->attempt = (int) Min(strtoul(header->value + 1, &end, 10), PG_INT32_MAX);
	name->created_at = *end == '.' ? strtoll(end + 1, &end, 10) : 0;
	name->epoch = FUZZ_EPOCH;
	if (of == NULL || name->attempt < 1)
		return;
	header->length = stamp_write(stamp, of, name->id, name->attempt, name->created_at);
	stamped = *end == '\0';
	/* a bit of it is another one */
	if (!stamped)
		stamp[(unsigned char) end[0] % header->length] ^= (char) (1 << (unsigned char) end[1] % 7);
	header->value = pnstrdup(stamp, header->length);
}

static void
check_time(int64 time_ms)
{
	BrokerMessage message = {.time_ms = time_ms};
	TimestampTz time = record_written_at(&message);

	PROPERTY(time == DT_NOBEGIN || IS_VALID_TIMESTAMP(time));
	PROPERTY(time == DT_NOBEGIN || timestamptz_to_str(time) != NULL);
}

int
fuzz_record(const uint8_t *data, size_t size)
{
	FuzzInput	input = fuzz_input(data, size);
	BrokerMessage message = {0};
	RecordName	made = {0};
	RecordName	read;
	int64		time_ms = 0;
	const void *id;
	size_t		length;
	int64		last;

	for (int i = 0; i < 8; i++)
		time_ms = (int64) ((uint64) time_ms << 8 | (uint64) fuzz_byte(&input));
	check_time(time_ms);
	check_time(time_ms >> 16);
	stamped = false;
	for (nheaders = 0; nheaders < HEADERS_MAX && input.at < input.end;)
	{
		char	   *line = fuzz_line(&input);
		char	   *equals = strchr(line, '=');
		Header	   *header = &headers[nheaders];

		if (equals)
		{
			header->name = pnstrdup(line, equals - line);
			header->value = pstrdup(equals + 1);
			header->length = strlen(header->value);
			if (strcmp(header->name, "msgsys-stamp") == 0)
			{
				stamped = false;
				if (*header->value == '@')
					make_stamp(header, &made);
			}
			nheaders++;
		}
		(free) (line);
	}
	/* the stamp may be of an id that another header has taken the place of */
	stamped = stamped && broker_header(&message, "ce_id", &id, &length) && message_name_parse(id, length, &last) != NULL && last == made.id;
	if (record_name(&message, &read))
	{
		PROPERTY(stamped);
		PROPERTY(read.id == made.id && read.epoch == made.epoch && read.attempt == made.attempt && read.created_at == made.created_at);
	}
	else
		PROPERTY(!stamped);
	return 0;
}
