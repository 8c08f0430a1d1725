/*
 * broker.h
 *		The seam between the stages and a message broker.
 *
 * kafka.c implements it with librdkafka.  Nothing here or there knows of
 * PostgreSQL: memory is malloc'ed, failures are returned and never raised, and
 * no callback of a library runs code of ours in another thread.  All calls
 * come from one thread.  A Broker is either a producer or a consumer.
 */
#ifndef MSGSYS_BROKER_H
#define MSGSYS_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Broker Broker;

typedef enum BrokerRole
{
	BROKER_PRODUCER,
	BROKER_CONSUMER
} BrokerRole;

/* What became of a record, or of a call. */
typedef enum BrokerOutcome
{
	BROKER_OK,					/* done; for a record: in the log, acks=all */
	BROKER_FULL,				/* local queue full: poll reports, try again */
	BROKER_REFUSED,				/* this record can never be accepted */
	BROKER_REFUSED_RETRY,		/* this record is refused now, but may be accepted later */
	BROKER_REFUSED_TOPIC,		/* the topic takes no record at present (unknown, not authorised), whichever it is */
	BROKER_REFUSED_BATCH,		/* the batch that held it was refused, or is not known to be in the log: produce it again, alone (wait for its report
								 * before the next record) */
	BROKER_UNKNOWN,				/* no answer: may or may not be in the log */
	BROKER_FATAL				/* the handle is unusable: close it, open anew */
} BrokerOutcome;

typedef struct BrokerConfig
{
	BrokerRole	role;
	const char *servers;		/* host:port, comma separated */
	const char *client_id;
	const char *group;			/* consumer: the group whose committed offsets lag tools look at */
	const char *options;		/* "name=value" pairs of the client library, separated by commas or newlines; a comma in a value is written "\,";
								 * they override ours */
	const char *options_file;	/* a file of such lines ('#' comments), read at open, or NULL; options win over it */
	size_t		max_message_bytes;	/* largest record, headers included */
	int			max_queued;		/* records that may wait for a report */
} BrokerConfig;

typedef struct BrokerHeader
{
	const char *name;			/* NUL terminated */
	const void *value;
	size_t		length;
} BrokerHeader;

typedef struct BrokerRecord
{
	const char *topic;
	const void *key;			/* NULL: none */
	size_t		key_length;
	const void *value;
	size_t		value_length;
	const BrokerHeader *headers;
	int			nheaders;
	void	   *opaque;			/* comes back in the report */
} BrokerRecord;

typedef struct BrokerReport
{
	void	   *opaque;
	BrokerOutcome outcome;
	int32_t		partition;
	int64_t		offset;
	char		reason[160];	/* the broker's words; empty when BROKER_OK */
} BrokerReport;

typedef struct BrokerPosition
{
	const char *topic;
	int32_t		partition;
	int64_t		offset;			/* the next to read; BROKER_BEGINNING */
} BrokerPosition;

#define BROKER_BEGINNING	(-2)

/*
 * A record that was read; every pointer is valid until broker_release().  Or none: where
 * end is set, its partition was read to its end as it was then, which is the offset; where broken is
 * set, a batch of records that begins there cannot be decompressed (one may hold 1,000 times its size),
 * and the partition is read from it again and again until broker_assign() says from where else.
 */
typedef struct BrokerMessage
{
	bool		end;
	bool		broken;
	const char *topic;
	int32_t		partition;
	int64_t		offset;
	int64_t		time_ms;		/* its timestamp, since 1970; -1: it has none */
	const void *key;
	size_t		key_length;
	const void *value;			/* NULL: a tombstone */
	size_t		value_length;
	void	   *handle;			/* for broker_header() */
} BrokerMessage;

typedef enum BrokerHealth
{
	BROKER_UP,					/* no reason to think otherwise */
	BROKER_DOUBTED,				/* a connection was lost: broker_reachable() tells */
	BROKER_DEAD					/* fatal error: close, open anew */
} BrokerHealth;

/*
 * Open a handle.  Returns NULL with words in err when the configuration is
 * wrong; an unreachable broker is not an error here.
 */
extern Broker *broker_open(const BrokerConfig *config, char *err, size_t errlen);

/*
 * Close a handle and free it.  Bounded: at most about a second, whatever the
 * broker does.  Records not yet reported are dropped.  NULL is allowed.
 */
extern void broker_close(Broker *broker);

/*
 * A non-blocking descriptor that becomes readable when there is something to
 * poll (reports, records, errors).  It is only ever read by broker_reports(),
 * broker_consume() and broker_health().
 */
extern int	broker_fd(const Broker *broker);

/*
 * What is known of the brokers from events seen so far; does not block.
 * *reason, if not NULL, is set to the latest error's words (never NULL, owned by
 * the handle).
 */
extern BrokerHealth broker_health(Broker *broker, const char **reason);

/*
 * Ask a broker whether it is there: a metadata request, at most timeout_ms.
 * Success makes broker_health() BROKER_UP again (unless dead).
 */
extern bool broker_reachable(Broker *broker, int timeout_ms, char *err, size_t errlen);

/* What is known of a topic. */
typedef struct BrokerTopicAnswer
{
	char		topic[256];
	BrokerOutcome outcome;		/* BROKER_OK, BROKER_REFUSED_TOPIC, or BROKER_UNKNOWN: no partition has a leader that answers */
	bool		no_broker;		/* no broker answered at all */
	int			partitions;
	int64_t    *ends;			/* of each partition: the next offset, 0 where that was not asked for; -1: it has no leader that answers */
	int64_t		max_bytes;		/* see broker_topic_limit(); 0: not told */
	char		reason[160];
} BrokerTopicAnswer;

/*
 * Ask for a topic, for a producer; does not block: broker_fd() becomes readable when
 * there is an answer.  want_ends: for the end of each partition, too, which only its
 * leader can tell.  A topic that is not there is asked for until timeout_ms is over; a broker that
 * creates topics on demand creates it.  False: there is no memory for it.
 */
extern bool broker_ask_topic(Broker *broker, const char *topic, bool want_ends, int timeout_ms);

/* Take an answer, whose pointers are valid until the next call; false: there is none. */
extern bool broker_topic_answer(Broker *broker, BrokerTopicAnswer *answer);

/*
 * The partition that a record with this key goes to, of so many; -1 where that cannot
 * be known.
 */
extern int	broker_partition(Broker *broker, const void *key, size_t length, int partitions);

/*
 * Number of partitions of a topic (>= 0 in *partitions), asked of the broker in
 * at most timeout_ms.  A broker that creates topics on demand creates it on
 * behalf of a producer.  Returns BROKER_OK, BROKER_REFUSED_TOPIC (unknown topic, not
 * authorised, invalid name) or BROKER_UNKNOWN (no answer).
 */
extern BrokerOutcome broker_topic(Broker *broker, const char *topic, int timeout_ms,
								  int *partitions, char *err, size_t errlen);

/*
 * The largest batch of records, in bytes, that a topic with these max_bytes takes
 * although it is smaller than the batches of this producer; 0 when it takes any of
 * them, or does not tell.  One record that is too large has all of its batch refused,
 * and those behind it overtake them: so hand over no more than that between two waits
 * for all reports.
 */
extern size_t broker_topic_limit(Broker *broker, int64_t max_bytes);

/* Bytes that a record counts for in a batch, before it is compressed. */
extern size_t broker_record_size(const BrokerRecord *record);

#define BROKER_NOT_KNOWN	(-1)
#define BROKER_NO_LEADER	(-3)

/* What a look found of a topic. */
typedef struct BrokerLookTopic
{
	char	   *name;
	BrokerOutcome outcome;		/* BROKER_OK, BROKER_REFUSED_RETRY (there is none), BROKER_UNKNOWN */
	int			partitions;
	int64_t    *low;			/* first offset of each; negative: not known */
	int64_t    *high;			/* next offset of each; negative: not known */
} BrokerLookTopic;

typedef struct BrokerLook
{
	bool		answered;		/* by a broker; else reason says why not */
	int64_t		asked_ms;		/* by now_ms(): what was in the log then is below high */
	int			ntopics;
	BrokerLookTopic *topics;
	char		reason[160];
} BrokerLook;

/*
 * Begin to look at topics, without waiting: how many partitions they have, where
 * those begin and end.  broker_fd() becomes readable when that is known, and
 * broker_look_take() returns it (else NULL), for broker_look_free().  One at a time: false
 * while one is under way, or where it could not begin.
 */
extern bool broker_look_begin(Broker *broker, const char *const *topics, int ntopics, int timeout_ms);
extern BrokerLook *broker_look_take(Broker *broker);
extern void broker_look_free(BrokerLook *look);

/* First and next offset of a partition; blocks at most timeout_ms. */
extern bool broker_watermarks(Broker *broker, const char *topic, int32_t partition,
							  int timeout_ms, int64_t *low, int64_t *high,
							  char *err, size_t errlen);

/*
 * Hand a record to the producer.  Key, value and headers are copied.  BROKER_OK
 * means: a report with record->opaque will come.  With any other outcome no
 * report comes, and err has the reason.
 */
extern BrokerOutcome broker_publish(Broker *broker, const BrokerRecord *record,
									char *err, size_t errlen);

/*
 * Take up to max delivery reports; does not block.  Returns how many.  When
 * some are left, broker_fd() stays readable.
 */
extern int	broker_reports(Broker *broker, BrokerReport *reports, int max);

/*
 * Give up on every record that has no report yet, without waiting for a broker.
 * Their reports (BROKER_UNKNOWN) come within milliseconds: take them until all
 * are there.  The handle goes on.
 */
extern void broker_purge(Broker *broker);

/*
 * Read exactly these partitions from these positions from now on (replaces
 * what was read before; records of an earlier assignment are not returned any
 * more).  npositions may be 0.
 */
extern bool broker_assign(Broker *broker, const BrokerPosition *positions,
						  int npositions, char *err, size_t errlen);

/*
 * Take up to max records that have arrived; does not block.  The records of the
 * call before must have been released.  When some are left, broker_fd() stays
 * readable; it may also be readable when there is none.
 */
extern int	broker_consume(Broker *broker, BrokerMessage *messages, int max);

/*
 * Whether a partition is gone that was being read, since the last call.  When
 * its topic is there again, only a new handle is sure to read it: the library
 * takes a topic that was made anew for stale news of the old one.
 */
extern bool broker_lost_partition(Broker *broker);

/* Release the records of the last broker_consume(). */
extern void broker_release(Broker *broker);

/*
 * A header of a record that was read, the last one of that name.  Returns
 * false when there is none.
 */
extern bool broker_header(const BrokerMessage *message, const char *name,
						  const void **value, size_t *length);

/*
 * Tell the broker our positions, for tools that show lag; asynchronous, and a
 * failure is of no consequence (positions are kept in the database).
 */
extern void broker_commit(Broker *broker, const BrokerPosition *positions, int npositions);

/*
 * Take the next line that the library logged (syslog level, text); false when
 * there is none.  Lines beyond a small backlog are dropped, oldest first.
 * Option values that are secrets never appear in one.
 */
extern bool broker_log(Broker *broker, int *level, char *line, size_t linelen);

/* Name and version of the library behind, such as "librdkafka 2.0.2". */
extern const char *broker_version(void);

#endif							/* MSGSYS_BROKER_H */
