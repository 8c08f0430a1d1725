/*
 * relay.c
 *		The relay: claims messages, produces them, and marks them sent.
 *
 * A batch is one transaction, from the claim to the delivery reports, which is
 * milliseconds.  Nothing is claimed while the broker does not answer, and a batch
 * whose next report is too long in coming is given up: what was confirmed is
 * marked and committed, the rest is claimed again later.
 *
 * What one batch depends on does not hold up others.  A channel whose topic takes no
 * records is left out; records of a topic that are late while others are confirmed are
 * left to their producer (parked), and another one goes on.  A batch that fails is
 * claimed again in smaller pieces; what it had handed over is remembered (fate.c), and
 * not produced again.
 */
#include "msgsys.h"

#include "backlog.h"
#include "broker.h"
#include "catch_up.h"
#include "channel.h"
#include "fate.h"
#include "held.h"
#include "json_fields.h"
#include "monotonic.h"
#include "pace.h"
#include "payload.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "suspect.h"
#include "topic.h"
#include "worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_BATCH		1000	/* messages; doubles while batches are full */
#define BACKOFF_FIRST	200		/* ms between two questions to a dead broker */
#define BACKOFF_LONGEST 5000
#define SMALLER			10		/* ms between a batch that failed and a smaller one */
#define ALONE_AT_ONCE	100		/* records in a batch that are sent one by one */
#define REPORTS_AT_ONCE 1000
#define LAST_REPORTS	1000	/* ms to wait for the next one of a dead producer */
#define SYNC_FROM		1000	/* messages of a batch whose marks are not to be lost in a crash */
#define LOOK_UP_EVERY	256		/* rows between two looks at reports and pauses */
#define LATE			200		/* ms without a report, when others have theirs */
#define MOST_PARKED		4		/* producers with late records */
#define HOLD			1000	/* ms until due rows that were passed over are looked at again */
#define FATES_KEPT		(3600 * INT64CONST(1000))	/* ms */

/* One claimed message, until its fate is known. */
typedef struct Item
{
	ItemPointerData tid;
	int64		id;
	int			attempts;
	TimestampTz created_at;
	Channel    *channel;
	Topic	   *topic;
	bool		retry;
	bool		handed;			/* to the broker, which will report */
	bool		reported;
	BrokerOutcome outcome;
	int32		partition;
	int64		offset;
	const char *reason;
} Item;

typedef struct Batch
{
	ClaimKind	kind;
	int			limit;			/* most items */
	ClaimShare *shares;
	int			nshares;
	int		   *claimed;		/* rows of each share */
	Item	   *items;
	int			n;
	int			outstanding;	/* items without a report */
	int			nsent;
	int			nrefused;
	ItemPointerData *expired;
	int			nexpired;
	ItemPointerData *unacknowledged;	/* sent as often as may be */
	int			nunacknowledged;
	int			nalone;
	size_t		unreported;		/* bytes for topics with a limit, since a wait for all */
	size_t		bytes;
	bool		cut;			/* the claim ended before the shares were used */
	bool		gave_up;
	bool		parked;			/* what has no report is left to its producer */
	bool		begun;			/* in a transaction */
	bool		table_taken;	/* by somebody who wants it for himself */
	int64		only;			/* the row to be tried alone; 0: all */
	int64		first_id;		/* of the rows taken */
	int			first_share;
	int			nclaimed;
	PaceResult	run;
	TimestampTz began;
	TimestampTz claimed_at;
	TimestampTz confirmed_at;
	int64		last_report;	/* ms */
} Batch;

/* Late records, with the producer that they were handed to. */
typedef struct Parked
{
	Broker	   *broker;
	MemoryContext context;		/* of all this */
	ClaimKind	kind;
	Item	   *items;
	int			n;
	int			outstanding;
	int64		last_report;	/* ms */
} Parked;

static Broker *producer = NULL;
static bool producer_proven = false;	/* it has sent something */
static MemoryContext batch_context = NULL;
static int	batch_limit = FIRST_BATCH;
static bool careful = false;	/* a batch has failed: go on with small ones */
static int	backoff = 0;		/* ms; 0: the broker answers */
static char trouble[256] = "";	/* the latest with the broker */
static int64 ask_again_at = 0;	/* ms */
static List *parked = NIL;		/* of Parked */
static uint64 passed = 0;		/* batches with rows that were committed */
static uint64 passed_at_failure = 0;
static int	failure_pause = 0;	/* ms; all fail: it is the environment */
static int64 failed_until = 0;	/* ms */
static bool look_for_dead = false;	/* a death may have been noted */
static int	first_share = 0;	/* which channel begins the next claim */

/* ---------------------------------------------------------------- broker */

/* The broker does not answer: claim nothing for a while. */
static void
broker_lost(const char *reason)
{
	if (backoff == 0)
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("msgsys relay has lost the broker: %s", reason)));
	strlcpy(trouble, reason, sizeof(trouble));
	slot_error(trouble);		/* which may be known only after a while */
	backoff = Min(BACKOFF_LONGEST, Max(BACKOFF_FIRST, backoff * 2));
	ask_again_at = now_ms() + backoff;
	slot_state(WORKER_BROKER_DOWN);
}

/* Close the producer; what it was asked has no answer any more. */
static void
close_producer(void)
{
	worker_close_broker(&producer);
	producer_proven = false;
	topics_unasked();
}

/* A fatal error ends an idempotent producer: another one is made for the next batch. */
static void
producer_died(const char *reason)
{
	ereport(LOG, (errmsg("msgsys relay makes a new producer: %s", reason)));
	slot_error(reason);
	close_producer();
}

/* Have the next claim of due rows begin at their first. */
static void
due_restart(Channel *channel)
{
	channel->due_mark = DT_NOBEGIN;
	channel->due_mark_id = PG_INT64_MIN;
	channel->due_passed = false;
}

/* Rows of a channel that were passed over may go now. */
static void
release_held(Channel *channel)
{
	due_restart(channel);
	if (channel->held_low != PG_INT64_MAX)
	{
		channel->low = Min(channel->low, channel->held_low - 1);
		channel->held_low = PG_INT64_MAX;
		channel->dirty = true;
	}
	channel->hold_until = 0;
}

/* A topic takes records that have waited. */
static void
topic_back(Topic *topic)
{
	ListCell   *lc;

	foreach(lc, channels)
		if (((Channel *) lfirst(lc))->topic)
			release_held(lfirst(lc));
}

/* Forget late records, of which nothing more will be known. */
static void
parked_drop(Parked *p)
{
	for (int i = 0; i < p->n; i++)
	{
		Item	   *item = &p->items[i];

		if (!item->handed)
			continue;
		item->topic->parked = false;
		if (!item->reported)
			fate_forget(p->kind, item->id);
	}
	worker_close_broker(&p->broker);
	parked = list_delete_ptr(parked, p);
	MemoryContextDelete(p->context);
	topic_back(NULL);
}

/* The broker or the installation is another one: nothing of the topics holds any more. */
static void
forget_topics(void)
{
	while (parked != NIL)
		parked_drop(linitial(parked));
	topics_forget();
}

/* Whether there is a broker that answers, as far as one can know. */
static bool
broker_answers(void)
{
	const char *reason;
	char		err[256];

	if (worker_broker_settings_changed())
	{
		close_producer();
		forget_topics();
		slot_error_over(trouble);
		backoff = 0;
		ask_again_at = 0;
		producer = worker_open_broker(BROKER_PRODUCER);
	}
	if (setting_kafka_brokers[0] == '\0')
	{
		slot_state(WORKER_NO_BROKER);
		return false;
	}
	if (producer && broker_health(producer, &reason) == BROKER_DEAD)
		producer_died(reason);
	if (producer == NULL)
		producer = worker_open_broker(BROKER_PRODUCER);
	if (producer == NULL)
		return false;
	worker_broker_log(producer);
	if (backoff == 0 && broker_health(producer, &reason) == BROKER_UP)
		return true;

	/* it has been away, or its connections broke just now: ask */
	if (now_ms() < ask_again_at)
		return false;
	if (!broker_reachable(producer, 500, err, sizeof(err)))
	{
		broker_lost(err);
		return false;
	}
	if (backoff > 0)
		ereport(LOG, (errmsg("msgsys relay has the broker back")));
	slot_error_over(trouble);
	backoff = 0;
	return true;
}

/* Ask the broker, on behalf of what waits to be read back. */
static bool
broker_answers_now(void)
{
	char		err[256];

	if (producer == NULL)
		return false;
	if (broker_reachable(producer, 500, err, sizeof(err)))
		return true;
	broker_lost(err);
	return false;
}

/* Where a channel's rows of a kind go; retry: those that are tried again. */
static const char *
topic_of(const Channel *channel, ClaimKind kind, bool retry)
{
	if (kind == CLAIM_DEAD_LETTER)
		return channel->dead_topic;
	return retry && channel->has_webhook ? channel->retry_topic : channel->topic;
}

/* Whether rows of a kind may go to the topics of a channel; those that are needed are asked for. */
static bool
topics_ready(Channel *channel, ClaimKind kind)
{
	bool		readback = channel->ack == ACK_READBACK;

	if (kind == CLAIM_DEAD_LETTER)
		return topic_ready(producer, channel->dead_topic, false);
	if (channel->ack == ACK_TOPIC && !topic_ready(producer, setting_acks_topic, true))
		return false;
	if (kind == CLAIM_IDLE)
		return topic_ready(producer, channel->topic, readback);

	/* only a row tells which of the two it goes to */
	if (channel->awaits_topic && !topic_ready(producer, channel->topic, readback))
		return false;
	channel->awaits_topic = false;
	if (channel->awaits_retry && !topic_ready(producer, channel->retry_topic, readback))
		return false;
	channel->awaits_retry = false;
	return true;
}

/* ---------------------------------------------------------------- batch */

/* A row has to wait for its topic. */
static void
await_topic(Channel *channel, bool retry)
{
	if (retry && channel->has_webhook)
		channel->awaits_retry = true;
	else
		channel->awaits_topic = true;
}

/* Enter what became of a record into its item. */
static void
item_done(Batch *batch, Item *item, BrokerOutcome outcome, const char *reason)
{
	item->reported = true;
	item->outcome = outcome;
	item->reason = outcome == BROKER_OK || outcome == BROKER_UNKNOWN ? NULL :
		MemoryContextStrdup(batch_context, presentable(reason, strlen(reason), strlen(reason)));
	switch (outcome)
	{
		case BROKER_OK:
			if (item->topic->trouble && item->handed)
				topic_proven(item->topic);
			batch->nsent++;
			break;
		case BROKER_REFUSED:
		case BROKER_REFUSED_RETRY:
			batch->nrefused++;
			break;
		case BROKER_REFUSED_TOPIC:
			topic_outage(item->topic, reason);
			await_topic(item->channel, item->retry);
			break;
		case BROKER_REFUSED_BATCH:
			break;
		case BROKER_FULL:
		case BROKER_UNKNOWN:
		case BROKER_FATAL:
			batch->gave_up = true;
			break;
	}
}

/* Take the delivery reports that are there. */
static void
take_reports(Batch *batch)
{
	static BrokerReport reports[REPORTS_AT_ONCE];
	int			n;

	while ((n = broker_reports(producer, reports, REPORTS_AT_ONCE)) > 0)
	{
		for (int i = 0; i < n; i++)
		{
			Item	   *item = &batch->items[(intptr_t) reports[i].opaque];

			item->partition = reports[i].partition;
			item->offset = reports[i].offset;
			item_done(batch, item, reports[i].outcome, reports[i].reason);
		}
		batch->outstanding -= n;
		batch->last_report = now_ms();
	}
}

/* Whether an item's report is still to come. */
static bool
is_late(const Item *item)
{
	return item->handed && !item->reported;
}

/*
 * Whether records are late by what their topics depend on, and not by what all
 * do: others were confirmed, in this batch or just before.
 */
static bool
others_answer(Batch *batch)
{
	bool		others = false;

	if (list_length(parked) >= MOST_PARKED || broker_health(producer, NULL) == BROKER_DEAD)
		return false;
	for (int i = 0; i < batch->n; i++)
		batch->items[i].topic->late |= is_late(&batch->items[i]);
	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		others |= item->handed && item->reported && item->outcome == BROKER_OK && !item->topic->late;
	}
	for (int i = 0; i < batch->n; i++)
		batch->items[i].topic->late = false;
	if (others)
		return true;
	return producer_proven && notes_waiting();
}

/* Leave the late records to their producer; the next batch has another one. */
static void
park(Batch *batch)
{
	Parked	   *p = MemoryContextAllocZero(batch_context, sizeof(Parked));
	MemoryContext old;

	*p = (Parked)
	{
		.broker = producer,.context = batch_context,.kind = batch->kind,.items = batch->items,
			.n = batch->n,.outstanding = batch->outstanding,.last_report = batch->last_report
	};
	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (!is_late(item))
			continue;
		topic_outage(item->topic, "its broker does not answer");
		item->topic->parked = true;
		fate_remember(batch->kind, item->id, item->attempts)->pending = true;
		await_topic(item->channel, item->retry);
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	parked = lappend(parked, p);
	MemoryContextSwitchTo(old);
	batch->parked = true;
	batch->outstanding = 0;
	producer = NULL;
	producer_proven = false;
	topics_unasked();
}

/* Remember what became of a record whose row is not marked. */
static void
remember(ClaimKind kind, const Item *item)
{
	Fate	   *fate = fate_remember(kind, item->id, item->attempts);

	fate->outcome = item->outcome;
	fate->partition = item->partition;
	fate->offset = item->offset;
	fate->since = now_ms();
	if (item->reason)
		strlcpy(fate->reason, item->reason, sizeof(fate->reason));
}

/* Whether an outcome is to be written into the row. */
static bool
is_final(BrokerOutcome outcome)
{
	return outcome == BROKER_OK || outcome == BROKER_REFUSED || outcome == BROKER_REFUSED_RETRY;
}

/* Take the reports of late records.  Their rows are marked when they are claimed again. */
static void
parked_look(Parked *p)
{
	static BrokerReport reports[REPORTS_AT_ONCE];
	int			n;

	while ((n = broker_reports(p->broker, reports, REPORTS_AT_ONCE)) > 0)
	{
		for (int i = 0; i < n; i++)
		{
			Item	   *item = &p->items[(intptr_t) reports[i].opaque];

			item->reported = true;
			item->outcome = reports[i].outcome;
			item->partition = reports[i].partition;
			item->offset = reports[i].offset;
			item->reason = reports[i].reason;
			if (is_final(item->outcome))
				remember(p->kind, item);
			else
				fate_forget(p->kind, item->id);
		}
		p->outstanding -= n;
		p->last_report = now_ms();
	}
	if (p->outstanding <= 0 || broker_health(p->broker, NULL) == BROKER_DEAD ||
		now_ms() - p->last_report >= setting_send_timeout)
		parked_drop(p);
}

static void
parked_look_all(void)
{
	List	   *all = list_copy(parked);
	ListCell   *lc;

	foreach(lc, all)
		parked_look(lfirst(lc));
}

/*
 * Wait for reports, until none is outstanding or fewer than most are.  A producer
 * that died still reports what is under way, and what it says is not sent twice.
 */
static void
await_reports(Batch *batch, int most)
{
	batch->last_report = now_ms();
	for (;;)
	{
		long		waited;
		long		left;
		bool		dead;

		if (batch->parked)
			return;
		take_reports(batch);
		dead = broker_health(producer, NULL) == BROKER_DEAD;
		batch->gave_up |= dead;
		if (batch->outstanding == 0 || batch->outstanding < most || (batch->gave_up && !dead))
			return;
		waited = (long) (now_ms() - batch->last_report);
		if (!dead && waited >= LATE && others_answer(batch))
		{
			park(batch);
			return;
		}
		left = (dead ? Min(LAST_REPORTS, setting_send_timeout) : setting_send_timeout) - waited;
		if (left <= 0)
		{
			batch->gave_up = true;
			return;
		}
		worker_wait(waited < LATE ? Min(left, LATE - waited) : Min(left, LATE));
		(void) worker_stopping();
	}
}

/*
 * See that a record shares a batch of the broker's only with records that fit into
 * it together: else, one too large has others refused, and later ones overtake them.
 */
static void
await_room(Batch *batch, const Topic *topic, const BrokerRecord *record)
{
	size_t		size = broker_record_size(record);

	if (batch->unreported > 0 && batch->unreported + size > topic->limit)
	{
		await_reports(batch, 0);
		batch->unreported = 0;
	}
	batch->unreported += size;
}

/* How many rows a batch does something with, whatever that is. */
static int
rows_taken(const Batch *batch)
{
	return batch->n + batch->nexpired + batch->nunacknowledged;
}

/* Leave a row as it is: it is claimed again later. */
static bool
pass_over(Batch *batch, Channel *channel, int64 id)
{
	if (batch->kind == CLAIM_IDLE)
		channel->held_low = Min(channel->held_low, id);
	else if (batch->kind == CLAIM_DUE)
		channel->due_passed = true;
	else if (batch->kind == CLAIM_RESEND)
		channel->hold_until = now_ms() + HOLD;
	return true;
}

/* Have the next claim go back to a row, which somebody held. */
static void
go_back_to(ClaimKind kind, Channel *channel, int64 id)
{
	if (kind == CLAIM_IDLE)
	{
		channel->low = Min(channel->low, id - 1);
		channel->dirty = true;
		return;
	}
	due_restart(channel);
	channel->hold_until = 0;
}

/*
 * Lock a row that is to be taken.  Returns false where somebody holds it, or an earlier
 * one of its key: it is claimed again when that is free.
 */
static bool
take_row(Batch *batch, Channel *channel, const ClaimedRow *row)
{
	if (!held_blocks(batch->kind, channel, row))
	{
		if (store_lock_claimed(row))
			return true;
		if (!held_enter(batch->kind, channel, row))
		{
			/* what comes after it might be of its key */
			channel->crowded = true;
			go_back_to(batch->kind, channel, row->id);
			batch->cut = true;
		}
	}
	if (batch->kind == CLAIM_DUE)
		(void) pass_over(batch, channel, row->id);
	return false;
}

/* Whether the partition that a row goes to has no leader. */
static bool
partition_down(const Topic *topic, const ClaimedRow *row)
{
	char		id[24];
	int			partition;

	snprintf(id, sizeof(id), INT64_FORMAT, row->id);
	partition = broker_partition(producer, row->key ? row->key : id, row->key ? row->key_length : strlen(id), topic->partitions);
	return partition < 0 || bms_is_member(partition, topic->down);
}

/* Why a row can never be a record: it is too large, and its text is not even made. */
static const char *
too_large(const ClaimedRow *row)
{
	size_t		most = setting_max_message_bytes;

	if (row->payload ? payload_fits(row->payload, most) : VARSIZE_ANY_EXHDR(row->body) <= most)
		return NULL;
	return psprintf("message of %zu bytes is too large for msgsys.max_message_bytes",
					row->payload ? payload_text_size(row->payload) : VARSIZE_ANY_EXHDR(row->body));
}

/* Hand an item's row to the broker, as its last item. */
static void
hand_over(Batch *batch, Item *item, const ClaimedRow *row)
{
	BrokerRecord record;
	BrokerOutcome outcome;
	char		err[160];
	const char *reason = too_large(row);

	if (reason)
	{
		item_done(batch, item, BROKER_REFUSED, reason);
		return;
	}
	if (batch->kind == CLAIM_DEAD_LETTER)
		record_build_dead(&record, row, item->topic->name);
	else
		record_build(&record, row, item->topic->name);
	record.opaque = (void *) (intptr_t) (batch->n - 1);
	if (item->topic->limit > 0)
		await_room(batch, item->topic, &record);
	if (batch->gave_up || batch->parked)
		return;
	while ((outcome = broker_publish(producer, &record, err, sizeof(err))) == BROKER_FULL)
	{
		await_reports(batch, batch->outstanding);
		if (batch->gave_up || batch->parked)
			return;
	}
	if (outcome == BROKER_OK)
	{
		item->handed = true;
		batch->outstanding++;
	}
	else
		item_done(batch, item, outcome, err);
	batch->bytes += record.value_length + record.key_length;
}

/* A claimed row as an item. */
static Item *
add_item(Batch *batch, const ClaimedRow *row, Channel *channel, Topic *topic)
{
	Item	   *item = &batch->items[batch->n++];

	*item = (Item)
	{
		.tid = row->tid,.id = row->id,.attempts = row->attempts,.created_at = row->created_at,
			.channel = channel,.topic = topic,.retry = row->retry
	};
	return item;
}

/* A claim has come to a row: the next one goes on behind it. */
static void
move_mark(Batch *batch, Channel *channel, const ClaimedRow *row)
{
	if (batch->kind == CLAIM_IDLE)
		channel->low = Max(channel->low, row->id);
	else if (batch->kind == CLAIM_DUE && !batch->only)
	{
		if (channel->due_mark == DT_NOBEGIN)
			channel->due_pass_began = now_ms();
		channel->due_mark = row->due_at;
		channel->due_mark_id = row->id;
	}
}

/* See what is to become of a claimed row: most are handed to the broker. */
static bool
relay_row(const ClaimedRow *row, void *arg)
{
	Batch	   *batch = arg;
	Channel    *channel = batch->shares[row->share].channel;
	Topic	   *topic = topic_find(topic_of(channel, batch->kind, row->retry));
	bool		alone = row->id <= channel->alone_until || topic->trouble;
	bool		expired = row->expires_at <= batch->began && batch->kind != CLAIM_DEAD_LETTER;
	bool		unacknowledged = batch->kind == CLAIM_RESEND && row->attempts >= channel->max_attempts;
	Fate	   *fate;

	/* the one that is to be tried alone is done with: this one's turn comes later */
	if (batch->only && row->id != batch->only)
		return batch->kind != CLAIM_IDLE;
	batch->claimed[row->share]++;
	move_mark(batch, channel, row);
	if (!batch->only && suspect_find(batch->kind, row->id))
		return pass_over(batch, channel, row->id);

	fate = fate_find(batch->kind, row->id, row->attempts);
	if (fate && fate->pending)
		return pass_over(batch, channel, row->id);
	if (!fate && !expired && !unacknowledged)
	{
		if (!topic_usable(topic))
		{
			await_topic(channel, row->retry);
			return pass_over(batch, channel, row->id);
		}
		if (topic->down && partition_down(topic, row))
			return pass_over(batch, channel, row->id);
	}
	if (!take_row(batch, channel, row))
		return !batch->cut;
	if (rows_taken(batch) == 0)
	{
		batch->first_id = row->id;
		batch->first_share = row->share;
	}

	if (fate)
	{
		Item	   *item = add_item(batch, row, channel, topic);

		item->partition = fate->partition;
		item->offset = fate->offset;
		item_done(batch, item, fate->outcome, fate->reason);
		return rows_taken(batch) < batch->limit;
	}
	if (expired)
	{
		batch->expired[batch->nexpired++] = row->tid;
		return rows_taken(batch) < batch->limit;
	}
	if (unacknowledged)
	{
		batch->unacknowledged[batch->nunacknowledged++] = row->tid;
		channel->dead_letters = true;
		return rows_taken(batch) < batch->limit;
	}
	if (alone)
		await_reports(batch, 0);
	if (batch->gave_up || batch->parked || !topic_usable(topic))
	{
		pass_over(batch, channel, row->id);
		return false;
	}
	hand_over(batch, add_item(batch, row, channel, topic), row);
	if (alone && !batch->gave_up && !batch->parked)
	{
		await_reports(batch, 0);
		batch->cut |= ++batch->nalone >= ALONE_AT_ONCE;
	}

	if (batch->n % LOOK_UP_EVERY == 0 && !batch->parked)
	{
		take_reports(batch);
		if (worker_config_changed())
			batch->cut = true;	/* perhaps a pause: obey it soon */
	}
	if (batch->bytes >= (size_t) setting_batch_bytes * 1024)
		batch->cut = true;
	return !batch->cut && !batch->gave_up && !batch->parked && rows_taken(batch) < batch->limit;
}

/* Dead letters that were written or refused are done with, either way. */
static void
mark_dead_letters(const SentMark *sent, int nsent, const RefusedMark *refused, int nrefused)
{
	RefusedMark *marks = palloc((nsent + nrefused + 1) * sizeof(RefusedMark));

	for (int i = 0; i < nsent; i++)
	{
		marks[i].tid = sent[i].tid;
		marks[i].reason = NULL;
	}
	memcpy(marks + nsent, refused, nrefused * sizeof(RefusedMark));
	if (nsent + nrefused > 0)
		store_mark_dead_letters(marks, nsent + nrefused);
}

/*
 * Write down what became of the batch.  What has no answer stays as it was, and
 * is claimed again.
 */
static void
mark_batch(Batch *batch)
{
	SentMark   *sent = palloc(Max(batch->n, 1) * sizeof(SentMark));
	RefusedMark *refused = palloc(Max(batch->nrefused, 1) * sizeof(RefusedMark));
	int			nsent = 0;
	int			nrefused = 0;

	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (item->reported && item->outcome == BROKER_OK)
		{
			sent[nsent].tid = item->tid;
			sent[nsent].partition = item->partition;
			sent[nsent].offset = item->offset;
			nsent++;
		}
		else if (item->reported &&
				 (item->outcome == BROKER_REFUSED || item->outcome == BROKER_REFUSED_RETRY))
		{
			refused[nrefused].tid = item->tid;
			refused[nrefused].permanent = item->outcome == BROKER_REFUSED;
			refused[nrefused].reason = item->reason;
			nrefused++;
		}
		else if (fate_find(batch->kind, item->id, item->attempts))
			(void) pass_over(batch, item->channel, item->id);	/* under way */
		else
		{
			/* one of its batch was refused, perhaps not this one: see alone */
			if (item->reported && item->outcome == BROKER_REFUSED_BATCH)
				item->channel->alone_until = Max(item->channel->alone_until, item->id);
			if (batch->kind == CLAIM_IDLE)
			{
				item->channel->low = Min(item->channel->low, item->id - 1);
				item->channel->dirty = true;
			}
			else if (batch->kind == CLAIM_DUE)
				due_restart(item->channel);
		}
	}
	if (batch->kind == CLAIM_DEAD_LETTER)
	{
		mark_dead_letters(sent, nsent, refused, nrefused);
		return;
	}
	if (nsent > 0)
		store_mark_sent(sent, nsent);
	if (nrefused > 0)
		store_mark_refused(refused, nrefused);
	if (batch->nexpired > 0)
		store_mark_expired(batch->expired, batch->nexpired);
	if (batch->nunacknowledged > 0)
		store_mark_unacknowledged(batch->unacknowledged, batch->nunacknowledged);
	if (nrefused > 0)
		store_next_due(batch->shares, batch->nshares, DT_NOBEGIN);
}

/* One line, for batches that are worth one. */
static void
log_batch(Batch *batch)
{
	TimestampTz now = clock_now();

	if (setting_log_batch < 0 || batch->n < Max(setting_log_batch, 1))
		return;
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys relay sent %d messages, ids " INT64_FORMAT " to " INT64_FORMAT
					", in %ld ms (claim %ld, confirmation %ld, mark %ld)",
					batch->nsent, batch->items[0].id, batch->items[batch->n - 1].id,
					TimestampDifferenceMilliseconds(batch->began, now),
					TimestampDifferenceMilliseconds(batch->began, batch->claimed_at),
					TimestampDifferenceMilliseconds(batch->claimed_at, batch->confirmed_at),
					TimestampDifferenceMilliseconds(batch->confirmed_at, now)),
			 batch->nrefused > 0 ? errdetail("%d were refused.", batch->nrefused) : 0));
}

/* Whether a batch is of a run of a channel with a pace, which one worker sends. */
static bool
is_paced(ClaimKind kind, const ClaimShare *shares)
{
	return kind != CLAIM_DEAD_LETTER && shares[0].channel->pace.batch > 0;
}

/* Write down what the batch has done of its run. */
static void
mark_run(Batch *batch)
{
	PaceResult *result = &batch->run;

	result->channel = batch->shares[0].channel;
	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (item->reported && is_final(item->outcome))
			pace_count(result, item->id, item->outcome == BROKER_OK, item->reason);
	}
	pace_write(result);
}

/* Count how long the messages of a batch took that were sent for the first time. */
static void
observe_batch(Batch *batch)
{
	Durations	claim = {0};
	Durations	send = {0};
	Durations	wait = {0};

	if (batch->kind != CLAIM_IDLE)
		return;
	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (!item->reported || item->outcome != BROKER_OK)
			continue;
		durations_add(&claim, duration(item->created_at, batch->began), 1);
		durations_add(&wait, duration(item->created_at, batch->confirmed_at), 1);
	}
	durations_add(&send, batch->confirmed_at - batch->began, batch->nsent);
	slot_observe(HISTOGRAM_CLAIM, &claim);
	slot_observe(HISTOGRAM_SEND, &send);
	slot_observe(HISTOGRAM_WAIT, &wait);
}

/* Tell who waits for these messages, and that they do not wait any more. */
static void
announce_batch(Batch *batch)
{
	uint64		buckets = 0;
	Channel    *channel = NULL;
	int			done = 0;

	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (!item->reported || !is_final(item->outcome))
			continue;
		buckets |= status_bucket(item->id);
		if (batch->kind != CLAIM_IDLE)
			continue;
		/* a channel's messages come one after the other */
		if (channel && channel != item->channel)
		{
			backlog_add(MyDatabaseId, channel->name, -done);
			done = 0;
		}
		channel = item->channel;
		done++;
	}
	if (channel)
		backlog_add(MyDatabaseId, channel->name, -done);
	status_changed(buckets);
}

/* Have the topics of items wait that were not confirmed in time.  Returns whether there are any. */
static bool
late_topics(Batch *batch)
{
	bool		any = false;

	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (!item->handed || (item->reported && item->outcome != BROKER_UNKNOWN))
			continue;
		topic_outage(item->topic, "no answer within msgsys.send_timeout");
		await_topic(item->channel, item->retry);
		any = true;
	}
	return any;
}

/*
 * A batch has ended without all of its reports.  Returns whether to go on at once:
 * with another producer, where this one died but had sent something before, or where
 * the broker is there and only some topics are in trouble.  Else the
 * broker did not answer in time: begin anew with it, later and more carefully.
 */
static bool
give_up(Batch *batch)
{
	const char *reason;
	char		err[256];

	slot_count_up(COUNT_GAVE_UP, 1);
	if (producer == NULL)
		return true;
	if (broker_health(producer, &reason) == BROKER_DEAD)
	{
		if (producer_proven)
		{
			producer_died(reason);
			return true;
		}
	}
	else if (broker_reachable(producer, 500, err, sizeof(err)) && late_topics(batch))
	{
		close_producer();
		return true;
	}
	batch_limit = Max(batch->n / 2, 1);
	broker_lost(reason[0] ? reason : "no answer within msgsys.send_timeout");
	close_producer();
	return false;
}

/* A channel whose share was not used up has nothing more of a kind. */
static void
share_ends(ClaimKind kind, Channel *channel)
{
	if (kind == CLAIM_IDLE)
		channel->dirty = false;
	else if (kind == CLAIM_DUE)
	{
		/* a pass through many takes its time */
		if (channel->due_passed)
			channel->hold_until = now_ms() + Max(HOLD, 4 * (now_ms() - channel->due_pass_began));
		due_restart(channel);
	}
}

/* What a batch does in its transaction. */
static void
batch_work(void *arg)
{
	Batch	   *batch = arg;
	ClaimKind	kind = batch->kind;

	batch->begun = true;
	pgstat_report_activity(STATE_RUNNING, "relaying messages");
	claim_point.id = 0;
	batch->table_taken = !store_lock_messages();
	if (batch->table_taken)
		return;
	catch_up_batch_begins();
	batch->nclaimed = store_claim(kind, batch->shares, batch->nshares, slot_number(),
								  is_paced(kind, batch->shares) ? 1 : setting_relay_workers, relay_row, batch);
	batch->claimed_at = clock_now();
	if (!batch->parked)
		await_reports(batch, 0);
	batch->confirmed_at = clock_now();
	if (!batch->cut && !batch->gave_up && !batch->parked && !batch->only && batch->nclaimed < batch->limit)
		for (int s = 0; s < batch->nshares; s++)
			if (batch->claimed[s] < batch->shares[s].limit)
				share_ends(kind, batch->shares[s].channel);
	mark_batch(batch);
	if (is_paced(kind, batch->shares))
		mark_run(batch);
	if (kind == CLAIM_DEAD_LETTER && !batch->cut && !batch->gave_up && !batch->parked)
	{
		if (!batch->only)
			for (int s = 0; s < batch->nshares; s++)
				batch->shares[s].channel->dead_letters = batch->claimed[s] >= batch->shares[s].limit;
	}
	else if (kind != CLAIM_IDLE)
		store_next_due(batch->shares, batch->nshares, DT_NOBEGIN);
	/* one flush for thousands, which would all be sent again */
	if (batch->nsent >= SYNC_FROM)
		ForceSyncCommit();
}

static void
set_aside(void *arg)
{
	Suspect    *suspect = ((void **) arg)[0];
	ErrorData  *reason = ((void **) arg)[1];

	store_set_aside(suspect->id, suspect->kind == CLAIM_DEAD_LETTER, reason->message);
}

/* A write that has nothing to do with messages. */
static void
write_elsewhere(void *arg)
{
	store_write_elsewhere();
	ForceSyncCommit();
}

/* Whether a row is at fault that fails for long where there is no other: see suspect.h. */
static bool
alone_at_fault(const Suspect *suspect, const ErrorData *reason)
{
	ErrorData  *error;

	if (suspect->failures_alone < STRIKES_ALONE || error_is_of_locks(reason) || error_is_of_server(reason))
		return false;
	return worker_try_any(write_elsewhere, NULL, &error);
}

/* A row has failed alone; whether it is the row's fault, suspect.h says. */
static void
row_failed(ClaimKind kind, int64 id, Channel *channel, ErrorData *reason)
{
	Suspect    *suspect = suspect_enter(kind, id, channel->name, passed, now_ms());
	void	   *args[2] = {suspect, reason};
	ErrorData  *error;

	if (kind == CLAIM_IDLE)
		channel->held_low = Min(channel->held_low, id);
	if (!suspect->at_fault && !alone_at_fault(suspect, reason))
		return;
	if (!worker_try_any(set_aside, args, &error))
		return;
	ereport(LOG,
			(errmsg("msgsys relay sets message " INT64_FORMAT " aside: %s", id, reason->message),
			 suspect->at_fault ? errdetail("It has failed three times alone while others passed.") :
			 errdetail("It has failed %d times alone while there was no other, and other tables can be written.", suspect->failures_alone)));
	suspect_forget(kind, id);
	fate_forget(kind, id);
	failure_pause = 0;
	failed_until = 0;
	status_changed(status_bucket(id));
}

/*
 * The transaction of a batch has failed: what it has handed over is waited for, and
 * remembered, and its rows are claimed again.  Where it is not known which row has
 * failed, fewer are, down to one.
 */
static void
batch_failed(Batch *batch, ErrorData *error)
{
	int64		id = claim_point.id;
	int			share = claim_point.share;
	int			rows = rows_taken(batch);

	slot_error(error->message);
	if (failure_pause == 0 && !careful && !batch->only)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys relay could not handle a batch: %s", error->message)));
	claim_point.id = 0;
	if (batch->outstanding > 0)
		await_reports(batch, 0);
	for (int i = 0; i < batch->n; i++)
		if (batch->items[i].reported && is_final(batch->items[i].outcome))
			remember(batch->kind, &batch->items[i]);
	for (int s = 0; s < batch->nshares; s++)
	{
		Channel    *channel = batch->shares[s].channel;

		if (batch->kind == CLAIM_IDLE)
		{
			channel->low = Min(channel->low, batch->shares[s].low);
			channel->dirty = true;
		}
		due_restart(channel);
		channel->dead_letters |= batch->kind == CLAIM_DEAD_LETTER;
		if (batch->kind == CLAIM_RESEND)
			channel->next_resend = 0;
	}
	if (batch->only)
	{
		id = batch->only;
		share = 0;
	}
	else if (id == 0 && rows == 1)
	{
		id = batch->first_id;
		share = batch->first_share;
	}
	/* when all fail, it is the environment: back off */
	if (passed > passed_at_failure)
		failure_pause = 0;
	else
		failure_pause = id == 0 && rows > 1 ? SMALLER : Min(BACKOFF_LONGEST, Max(BACKOFF_FIRST, failure_pause * 2));
	passed_at_failure = passed;
	failed_until = now_ms() + failure_pause;
	if (id != 0)
		row_failed(batch->kind, id, batch->shares[share].channel, error);
	else
	{
		batch_limit = Max(rows / 2, 1);
		careful = true;
	}
	if (batch->gave_up)
		(void) give_up(batch);
}

/* Claim no more than before, or more where there is more, unless a batch has failed just now. */
static void
grow_batches(int nclaimed)
{
	if (nclaimed >= batch_limit || careful)
		batch_limit *= 2;
	careful &= batch_limit < FIRST_BATCH;
	batch_limit = Min(setting_batch_size, careful ? batch_limit : Max(batch_limit, FIRST_BATCH));
}

/* A batch is committed. */
static void
batch_done(Batch *batch)
{
	if (batch->run.channel)
		pace_settle(&batch->run);
	announce_batch(batch);
	observe_batch(batch);
	slot_count_up(COUNT_CYCLES, batch->nclaimed > 0);
	slot_count_up(COUNT_CLAIMED, batch->nclaimed);
	slot_count_up(batch->kind == CLAIM_DEAD_LETTER ? COUNT_DEAD_LETTERS : COUNT_SENT, batch->nsent);
	slot_count_up(COUNT_REFUSED, batch->kind == CLAIM_DEAD_LETTER ? 0 : batch->nrefused);
	slot_count_up(COUNT_EXPIRED, batch->nexpired);
	slot_count_up(COUNT_BYTES, batch->bytes);
	log_batch(batch);
	for (int i = 0; i < batch->n; i++)
		if (batch->items[i].reported)
			fate_forget(batch->kind, batch->items[i].id);
	if (batch->nsent + batch->nrefused + batch->nexpired + batch->nunacknowledged > 0)
		passed++;
	if (passed > passed_at_failure)
		failure_pause = 0;
	producer_proven |= batch->nsent > 0 && !batch->parked;
}

/*
 * Claim, produce, await, mark, commit; only: this row alone, or 0.  Returns false when there is
 * nothing more to be had of this kind in these channels just now.
 */
static bool
relay_batch(ClaimKind kind, ClaimShare *shares, int nshares, int64 only)
{
	Batch		batch = {
		.kind = kind,
		.limit = batch_limit,
		.shares = shares,
		.nshares = nshares,
		.claimed = palloc0(nshares * sizeof(int)),
		.only = only,
		.began = clock_now(),
	};
	ErrorData  *error;
	bool		more;

	MemoryContextReset(batch_context);
	batch.items = MemoryContextAllocHuge(batch_context, sizeof(Item) * (Size) batch_limit);
	batch.expired = MemoryContextAllocHuge(batch_context, sizeof(ItemPointerData) * (Size) batch_limit);
	if (kind == CLAIM_RESEND)
		batch.unacknowledged = MemoryContextAllocHuge(batch_context, sizeof(ItemPointerData) * (Size) batch_limit);

	slot_state(WORKER_BUSY);
	if (!worker_try_any(batch_work, &batch, &error))
	{
		batch_failed(&batch, error);
		more = true;
	}
	else if (!batch.begun)
		more = false;
	else if (batch.table_taken)
	{
		/* somebody wants the table for himself: let him */
		worker_wait(100);
		more = false;
	}
	else
	{
		batch_done(&batch);
		/* what is left to its producer may yet be in Kafka */
		if (!batch.gave_up && parked == NIL)
			catch_up_batch_ends();
		more = batch.nclaimed > 0;
		if (only)
			suspect_forget(kind, only);
		if (batch.gave_up)
			more = give_up(&batch);
		else
			grow_batches(batch.nclaimed);
	}
	if (batch.parked)
		batch_context = AllocSetContextCreate(TopMemoryContext, "msgsys batch", ALLOCSET_DEFAULT_SIZES);
	return more;
}

/* Try the next suspect alone. */
static void
relay_suspect(void)
{
	Suspect    *suspect = suspect_due(now_ms());
	ClaimShare	share = {0};
	Channel    *channel;
	ClaimKind	kind;
	int64		id;

	if (suspect == NULL)
		return;
	channel = channel_find(suspect->channel);
	if (channel == NULL || channel->topic == NULL)
	{
		suspect_forget(suspect->kind, suspect->id);
		return;
	}
	if (channel->paused || catch_up_holds(channel) || !topics_ready(channel, suspect->kind))
	{
		suspect->retry_at = now_ms() + HOLD;
		return;
	}
	share.channel = channel;
	share.low = suspect->kind == CLAIM_DUE ? PG_INT64_MIN : suspect->id - 1;
	share.low_due = DT_NOBEGIN;
	share.limit = suspect->kind == CLAIM_IDLE ? 1 : batch_limit;
	kind = suspect->kind;
	id = suspect->id;
	(void) relay_batch(kind, &share, 1, id);
	if (suspect_find(kind, id) == NULL)
		release_held(channel);
}

/* ---------------------------------------------------------------- main loop */

/* Act on what commits have noted. */
static void
take_notes(void)
{
	Note	   *notes;
	bool		sweep;
	int			n = notes_take(&notes, &sweep);

	if (sweep)
		worker_want_sweep();
	for (int i = 0; i < n; i++)
	{
		Channel    *channel = channel_find(notes[i].channel);

		if (channel == NULL)
		{
			/* made by the same commit, or of another stage: see it in a sweep */
			worker_want_sweep();
			continue;
		}
		if (notes[i].low[WAITING_IDLE] != PG_INT64_MAX)
		{
			channel->low = Min(channel->low, notes[i].low[WAITING_IDLE]);
			channel->dirty = true;
		}
		channel->next_due = Min(channel->next_due, notes[i].due);
		/* a death is noted as something that is due */
		look_for_dead |= notes[i].due != DT_NOEND;
	}
}

/* Whether a topic is one of our channels'. */
static bool
is_ours(const char *topic)
{
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic && (strcmp(topic, channel->topic) == 0 || strcmp(topic, channel->dead_topic) == 0 ||
							   (channel->has_webhook && strcmp(topic, channel->retry_topic) == 0) ||
							   (channel->ack == ACK_TOPIC && strcmp(topic, setting_acks_topic) == 0)))
			return true;
	}
	return false;
}

/* Be told of channels that have a topic, and of no others. */
static void
want_notes(void)
{
	ListCell   *lc;

	foreach(lc, channels)
		notes_want(((Channel *) lfirst(lc))->name, ((Channel *) lfirst(lc))->topic != NULL);
}

/* A sweep found a channel's first idle row. */
static void
found_idle(const char *name, WaitingKind kind, int64 id)
{
	Channel    *channel = channel_find(name);

	if (channel)
	{
		channel->low = id - 1;
		channel->dirty = true;
	}
}

/* A channel has dead letters that wait for their topic. */
static void
found_dead(const char *name, WaitingKind kind, int64 id)
{
	Channel    *channel = channel_find(name);

	if (channel)
		channel->dead_letters = true;
}

/* Look for dead letters. */
static void
find_dead(void *arg)
{
	look_for_dead = false;
	store_sweep_dead_letters(found_dead);
}

/* Look from the beginning, for what no note told of. */
static void
look(void)
{
	store_sweep(WAITING_IDLE, found_idle);
	store_sweep_due();
	find_dead(NULL);
	fates_forget_old(now_ms() - FATES_KEPT);
}

/* Whether a channel may have rows of a kind to be claimed. */
static bool
has_rows(const Channel *channel, ClaimKind kind, TimestampTz now)
{
	switch (kind)
	{
		case CLAIM_IDLE:
			return channel->dirty;
		case CLAIM_DUE:
			return (channel->next_due <= now || channel->due_mark != DT_NOBEGIN) && channel->hold_until <= now_ms();
		case CLAIM_DEAD_LETTER:
			return channel->dead_letters;
		default:
			return channel->resend_after != 0 && channel->ack != ACK_NONE && channel->next_resend <= now && channel->hold_until <= now_ms();
	}
}

/* Whether there is anything to claim, of whatever kind. */
static bool
any_rows(TimestampTz now)
{
	ListCell   *lc;

	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic == NULL || channel->paused)
			continue;
		if (channel->held_low != PG_INT64_MAX)
			return true;
		for (int kind = CLAIM_IDLE; kind <= CLAIM_DEAD_LETTER; kind++)
			if (has_rows(channel, kind, now))
				return true;
	}
	return false;
}

/* A channel's part of a claim, from where the last one ended. */
static ClaimShare
share_of(Channel *channel, ClaimKind kind, int limit)
{
	return (ClaimShare)
	{
		.channel = channel,.limit = limit,
			.low = kind == CLAIM_DUE ? channel->due_mark_id : channel->low,
			.low_due = channel->due_mark
	};
}

/* Whether a channel may be claimed from at all. */
static bool
may_claim(Channel *channel)
{
	channel->crowded &= held_full();
	return channel->topic != NULL && !channel->paused && !channel->crowded && !catch_up_holds(channel);
}

/*
 * The channels that have something of a kind to claim, each with its share of
 * the batch; they take turns to be the first.
 */
static int
share_out(ClaimKind kind, TimestampTz now, ClaimShare **shares)
{
	int			nchannels = list_length(channels);
	int			n = 0;
	int			i;

	*shares = palloc(Max(Min(nchannels, batch_limit), 1) * sizeof(ClaimShare));
	for (i = 0; i < nchannels && n < batch_limit; i++)
	{
		Channel    *channel = list_nth(channels, (first_share + i) % nchannels);

		if (!may_claim(channel))
			continue;
		if ((channel->pace.batch > 0 && kind != CLAIM_DEAD_LETTER) || !has_rows(channel, kind, now))
			continue;
		if (!topics_ready(channel, kind))
		{
			if (kind != CLAIM_IDLE)
				channel->hold_until = now_ms() + HOLD;
			continue;
		}
		if (kind == CLAIM_RESEND)
			channel->next_resend = now + Max(USECS_PER_SEC, channel->resend_after / 4);
		(*shares)[n++] = share_of(channel, kind, 0);
	}
	/* those that found no place come first the next time */
	if (nchannels > 0)
		first_share = (first_share + Max(i, 1)) % nchannels;
	for (int s = 0; s < n; s++)
		(*shares)[s].limit = batch_limit / n;
	return n;
}

/* Relay what is left of the run of a channel with a pace.  Returns whether there was anything. */
static bool
relay_run(Channel *channel, TimestampTz now)
{
	bool		any = false;
	bool		waits = false;

	if (!pace_open(channel, now))
		return false;
	for (int kind = CLAIM_IDLE; kind <= CLAIM_RESEND; kind++)
		while (pace_left(channel) > 0 && has_rows(channel, kind, now))
		{
			ClaimShare	share = share_of(channel, kind, Min(pace_left(channel), batch_limit));

			if (!broker_answers())
				return any;
			if (!topics_ready(channel, kind) || now_ms() < failed_until)
			{
				channel->hold_until = now_ms() + HOLD;
				waits = true;
				break;
			}
			if (kind == CLAIM_RESEND)
				channel->next_resend = now + Max(USECS_PER_SEC, channel->resend_after / 4);
			if (!relay_batch(kind, &share, 1, 0))
				break;
			any = true;
		}
	/* unless it was given up, or waits for its topic */
	if (backoff == 0 && !waits)
		pace_close(channel);
	return any;
}

/* Relay one batch of each kind that there is.  Returns whether there was any. */
static bool
relay_all(TimestampTz now)
{
	bool		any = false;
	ErrorData  *error;
	ListCell   *lc;

	topics_look_begin();
	parked_look_all();
	if (now_ms() < failed_until)
		return false;
	if (look_for_dead)
		(void) worker_try_any(find_dead, NULL, &error);
	if (backoff == 0)
		held_look(go_back_to);
	if (any_rows(now) && broker_answers())
	{
		topics_take_answers(producer, topic_back);
		relay_suspect();
	}
	for (int kind = CLAIM_IDLE; kind <= CLAIM_DEAD_LETTER && any_rows(now) && now_ms() >= failed_until; kind++)
	{
		ClaimShare *shares;
		int			nshares;

		if (!broker_answers())
			return false;
		nshares = share_out(kind, now, &shares);
		if (nshares > 0)
			any |= relay_batch(kind, shares, nshares, 0);
	}
	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (!may_claim(channel))
			continue;
		/* of what was passed over, its topic has to be asked for */
		if (channel->held_low != PG_INT64_MAX && producer)
			(void) topics_ready(channel, CLAIM_IDLE);
		if (channel->pace.batch > 0 && channel->hold_until <= now_ms())
			any |= relay_run(channel, now);
	}
	return any;
}

/* Milliseconds until there may be something to do that nobody tells us of. */
static long
idle_time(TimestampTz now)
{
	TimestampTz until = DT_NOEND;
	int64		wait = Min(Min(topics_next_question(), suspect_next()), held_next_look()) - now_ms();
	ListCell   *lc;

	if (backoff > 0)
		return (long) Max(1, ask_again_at - now_ms());
	if (now_ms() < failed_until)
		return (long) (failed_until - now_ms());
	if (parked != NIL)
		wait = Min(wait, LATE);
	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic == NULL || channel->paused)
			continue;
		if (channel->pace.batch > 0 && channel->hold_until <= now_ms())
		{
			until = Min(until, pace_next(channel));
			continue;
		}
		if (channel->hold_until > now_ms())
			wait = Min(wait, channel->hold_until - now_ms());
		else
			until = Min(until, channel->next_due);
		if (channel->resend_after > 0 && channel->ack != ACK_NONE && channel->hold_until <= now_ms())
			until = Min(until, channel->next_resend);
	}
	/* round up, lest a due time is missed by less than a millisecond */
	wait = Max(1, Min(wait, TimestampDifferenceMilliseconds(now, until) + 1));
	return catch_up_pause((long) Min(Min(setting_poll_interval, worker_sweep_in()), wait));
}

/* Main loop of a relay worker. */
void
relay_main(void)
{
	Oid			extension = InvalidOid;

	batch_context = AllocSetContextCreate(TopMemoryContext, "msgsys batch",
										  ALLOCSET_DEFAULT_SIZES);
	catch_up_begin(broker_answers_now);
	for (;;)
	{
		bool		reloaded = false;

		worker_cycle();
		take_notes();
		if (!worker_refresh(&reloaded))
		{
			worker_rest(setting_poll_interval);
			continue;
		}
		if (extension != installation.extension)
		{
			/* created anew: it has no positions of its topics yet */
			forget_topics();
			extension = installation.extension;
		}
		if (reloaded)
		{
			want_notes();
			topics_keep(is_ours);
			worker_want_sweep();
		}
		worker_sweep(look);
		if (relay_all(clock_now()))
			continue;
		if (broker_answers())
		{
			if (failure_pause == 0 && suspect_next() == PG_INT64_MAX && !topics_in_trouble())
				slot_well();
			slot_state(channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		}
		worker_rest(idle_time(clock_now()));
	}
}
