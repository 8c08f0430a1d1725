/*
 * relay.c
 *		The relay: claims messages, produces them, and marks them sent.
 *
 * A batch is one transaction, from the claim to the delivery reports, which is
 * milliseconds.  Nothing is claimed while the broker does not answer, and a batch
 * whose next report is too long in coming is given up: what was confirmed is
 * marked and committed, the rest is claimed again later.
 */
#include "msgsys.h"

#include "backlog.h"
#include "broker.h"
#include "channel.h"
#include "pace.h"
#include "record.h"
#include "shmem.h"
#include "store.h"
#include "topic.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FIRST_BATCH		1000	/* messages; doubles while batches are full */
#define BACKOFF_FIRST	200		/* ms between two questions to a dead broker */
#define BACKOFF_LONGEST 5000
#define ALONE_AT_ONCE	100		/* records in a batch that are sent one by one */
#define REPORTS_AT_ONCE 1000
#define LAST_REPORTS	1000	/* ms to wait for the next one of a dead producer */
#define LOOK_UP_EVERY	256		/* rows between two looks at reports and pauses */

/* One claimed message, until its fate is known. */
typedef struct Item
{
	ItemPointerData tid;
	int64		id;
	TimestampTz created_at;
	Channel    *channel;
	Topic	   *topic;
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
	bool		restored;		/* a message from another installation was met */
	bool		gave_up;
	TimestampTz began;
	TimestampTz claimed_at;
	TimestampTz confirmed_at;
	TimestampTz last_report;
} Batch;

static Broker *producer = NULL;
static bool producer_proven = false;	/* it has sent something */
static MemoryContext batch_context = NULL;
static int	batch_limit = FIRST_BATCH;
static int	backoff = 0;		/* ms; 0: the broker answers */
static TimestampTz ask_again_at = 0;
static int	first_share = 0;	/* which channel begins the next claim */

/* ---------------------------------------------------------------- broker */

/* The broker does not answer: claim nothing for a while. */
static void
broker_lost(const char *reason)
{
	if (backoff == 0)
	{
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("msgsys relay has lost the broker: %s", reason)));
		slot_error(reason);
	}
	backoff = Min(BACKOFF_LONGEST, Max(BACKOFF_FIRST, backoff * 2));
	ask_again_at = TimestampTzPlusMilliseconds(clock_now(), backoff);
	slot_state(WORKER_BROKER_DOWN);
}

/* A fatal error ends an idempotent producer: another one is made for the next batch. */
static void
producer_died(const char *reason)
{
	ereport(LOG, (errmsg("msgsys relay makes a new producer: %s", reason)));
	slot_error(reason);
	worker_close_broker(&producer);
	producer_proven = false;
}

/* Whether there is a broker that answers, as far as one can know. */
static bool
broker_answers(void)
{
	const char *reason;
	char		err[256];

	if (worker_broker_settings_changed())
	{
		worker_close_broker(&producer);
		topics_forget();
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
	if (clock_now() < ask_again_at)
		return false;
	if (!broker_reachable(producer, 500, err, sizeof(err)))
	{
		broker_lost(err);
		return false;
	}
	if (backoff > 0)
		ereport(LOG, (errmsg("msgsys relay has the broker back")));
	backoff = 0;
	return true;
}

/* Where a channel's rows of a kind go; retry: those that are tried again. */
static const char *
topic_of(const Channel *channel, ClaimKind kind, bool retry)
{
	if (kind == CLAIM_DEAD_LETTER)
		return channel->dead_topic;
	return retry && channel->has_webhook ? channel->retry_topic : channel->topic;
}

/* Prepare what the channels of a batch need.  False: the broker does not answer. */
static bool
topics_prepare(ClaimKind kind, ClaimShare *shares, int nshares)
{
	TimestampTz now = clock_now();
	char		err[256];

	for (int i = 0; i < nshares; i++)
	{
		Channel    *channel = shares[i].channel;

		CHECK_FOR_INTERRUPTS();
		if (!topic_prepare(producer, topic_of(channel, kind, false),
						   channel->ack == ACK_READBACK && kind != CLAIM_DEAD_LETTER, now, err, sizeof(err)) ||
			(kind != CLAIM_IDLE && kind != CLAIM_DEAD_LETTER && channel->has_webhook &&
			 !topic_prepare(producer, channel->retry_topic, channel->ack == ACK_READBACK, now, err, sizeof(err))) ||
			(channel->ack == ACK_TOPIC &&
			 !topic_prepare(producer, setting_acks_topic, true, now, err, sizeof(err))))
		{
			broker_lost(err);
			return false;
		}
	}
	return true;
}

/* ---------------------------------------------------------------- batch */

/* Enter a report into its item. */
static void
item_done(Batch *batch, Item *item, BrokerOutcome outcome, const char *reason)
{
	item->reported = true;
	item->outcome = outcome;
	item->reason = outcome == BROKER_OK || outcome == BROKER_UNKNOWN ? NULL :
		MemoryContextStrdup(batch_context, reason);
	switch (outcome)
	{
		case BROKER_OK:
			batch->nsent++;
			break;
		case BROKER_REFUSED:
		case BROKER_REFUSED_RETRY:
			batch->nrefused++;
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
			if (reports[i].outcome == BROKER_REFUSED_RETRY ||
				reports[i].outcome == BROKER_REFUSED_BATCH)
				topic_doubt(item->topic->name);
		}
		batch->outstanding -= n;
		batch->last_report = clock_now();
	}
}

/*
 * Wait for reports, until none is outstanding or fewer than most are.  A producer
 * that died still reports what is under way, and what it says is not sent twice.
 */
static void
await_reports(Batch *batch, int most)
{
	batch->last_report = clock_now();
	for (;;)
	{
		long		left;
		bool		dead;

		take_reports(batch);
		dead = broker_health(producer, NULL) == BROKER_DEAD;
		batch->gave_up |= dead;
		if (batch->outstanding == 0 || batch->outstanding < most || (batch->gave_up && !dead))
			return;
		left = (dead ? Min(LAST_REPORTS, setting_send_timeout) : setting_send_timeout) -
			TimestampDifferenceMilliseconds(batch->last_report, clock_now());
		if (left <= 0)
		{
			batch->gave_up = true;
			return;
		}
		worker_wait(Min(left, 1000));
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

/* Hand a claimed row to the broker. */
static bool
relay_row(const ClaimedRow *row, void *arg)
{
	Batch	   *batch = arg;
	Channel    *channel = batch->shares[row->share].channel;
	const char *name = topic_of(channel, batch->kind, row->retry);
	Topic	   *topic = topic_find(name);
	bool		alone = row->id <= channel->alone_until;
	Item	   *item;
	BrokerRecord record;
	BrokerOutcome outcome;
	char		err[160];

	if (row->created_at < installation.restored_before)
	{
		batch->restored = true;
		return false;
	}
	batch->claimed[row->share]++;
	if (batch->kind == CLAIM_IDLE && row->id > channel->low)
		channel->low = row->id;
	if (row->expires_at <= batch->began && batch->kind != CLAIM_DEAD_LETTER)
	{
		batch->expired[batch->nexpired++] = row->tid;
		return batch->nexpired + batch->n < batch->limit;
	}
	if (batch->kind == CLAIM_RESEND && row->attempts >= channel->max_attempts)
	{
		batch->unacknowledged[batch->nunacknowledged++] = row->tid;
		channel->dead_letters = true;
		return batch->nexpired + batch->nunacknowledged + batch->n < batch->limit;
	}

	if (alone)
		await_reports(batch, 0);
	if (batch->gave_up)
		return false;
	item = &batch->items[batch->n];
	item->tid = row->tid;
	item->id = row->id;
	item->created_at = row->created_at;
	item->channel = channel;
	item->topic = topic;
	item->reported = false;
	batch->n++;

	if (!topic->accepted)
		item_done(batch, item, BROKER_REFUSED_RETRY, topic->reason);
	else
	{
		if (batch->kind == CLAIM_DEAD_LETTER)
			record_build_dead(&record, row, name);
		else
			record_build(&record, row, name);
		record.opaque = (void *) (intptr_t) (batch->n - 1);
		if (topic->limit > 0)
			await_room(batch, topic, &record);
		if (batch->gave_up)
			return false;
		while ((outcome = broker_publish(producer, &record, err, sizeof(err))) == BROKER_FULL)
		{
			await_reports(batch, batch->outstanding);
			if (batch->gave_up)
				return false;
		}
		if (outcome == BROKER_OK)
			batch->outstanding++;
		else
			item_done(batch, item, outcome, err);
		batch->bytes += record.value_length + record.key_length;
		if (alone)
		{
			await_reports(batch, 0);
			batch->cut |= ++batch->nalone >= ALONE_AT_ONCE;
		}
	}

	if (batch->n % LOOK_UP_EVERY == 0)
	{
		take_reports(batch);
		if (worker_config_changed())
			batch->cut = true;	/* perhaps a pause: obey it soon */
	}
	if (batch->bytes >= (size_t) setting_batch_bytes * 1024)
		batch->cut = true;
	return !batch->cut && !batch->gave_up && batch->n + batch->nexpired + batch->nunacknowledged < batch->limit;
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
	PaceResult	result = {.channel = batch->shares[0].channel};

	for (int i = 0; i < batch->n; i++)
	{
		Item	   *item = &batch->items[i];

		if (item->reported && (item->outcome == BROKER_OK || item->outcome == BROKER_REFUSED || item->outcome == BROKER_REFUSED_RETRY))
			pace_count(&result, item->id, item->outcome == BROKER_OK, item->reason);
	}
	pace_write(&result);
	pace_settle(&result);
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
		durations_add(&claim, batch->began - item->created_at, 1);
		durations_add(&wait, batch->confirmed_at - item->created_at, 1);
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

		if (!item->reported || item->outcome == BROKER_REFUSED_BATCH)
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

/*
 * A batch has ended without all of its reports.  Returns whether to go on at once:
 * with another producer, where this one died but had sent something before.  Else the
 * broker did not answer in time: begin anew with it, later and more carefully.
 */
static bool
give_up(Batch *batch)
{
	const char *reason;

	slot_count_up(COUNT_GAVE_UP, 1);
	if (broker_health(producer, &reason) == BROKER_DEAD && producer_proven)
	{
		producer_died(reason);
		return true;
	}
	batch_limit = Max(batch->n / 2, 1);
	broker_lost(reason[0] ? reason : "no answer within msgsys.send_timeout");
	worker_close_broker(&producer);
	producer_proven = false;
	return false;
}

/*
 * Claim, produce, await, mark, commit.  Returns false when there is nothing more
 * to be had of this kind in these channels just now.
 */
static bool
relay_batch(ClaimKind kind, ClaimShare *shares, int nshares)
{
	Batch		batch = {
		.kind = kind,
		.limit = batch_limit,
		.shares = shares,
		.nshares = nshares,
		.claimed = palloc0(nshares * sizeof(int)),
		.began = clock_now(),
	};
	int			nclaimed;

	MemoryContextReset(batch_context);
	batch.items = MemoryContextAllocHuge(batch_context, sizeof(Item) * (Size) batch_limit);
	batch.expired = MemoryContextAllocHuge(batch_context, sizeof(ItemPointerData) * (Size) batch_limit);
	if (kind == CLAIM_RESEND)
		batch.unacknowledged = MemoryContextAllocHuge(batch_context, sizeof(ItemPointerData) * (Size) batch_limit);

	slot_state(WORKER_BUSY);
	if (!worker_begin())
		return false;
	pgstat_report_activity(STATE_RUNNING, "relaying messages");
	if (!store_lock_messages())
	{
		/* somebody wants the table for himself: let him */
		worker_commit();
		worker_wait(100);
		return false;
	}
	nclaimed = store_claim(kind, shares, nshares, slot_number(), is_paced(kind, shares) ? 1 : setting_relay_workers,
						   relay_row, &batch);
	if (batch.restored)
	{
		worker_met_restored();
		return false;
	}
	batch.claimed_at = clock_now();
	await_reports(&batch, 0);
	batch.confirmed_at = clock_now();
	/* a channel whose share was not used up has nothing more */
	if (kind == CLAIM_IDLE && !batch.cut && !batch.gave_up && nclaimed < batch.limit)
		for (int s = 0; s < nshares; s++)
			if (batch.claimed[s] < shares[s].limit)
				shares[s].channel->dirty = false;
	mark_batch(&batch);
	if (is_paced(kind, shares))
		mark_run(&batch);
	if (kind == CLAIM_DEAD_LETTER && !batch.cut && !batch.gave_up)
		for (int s = 0; s < nshares; s++)
			shares[s].channel->dead_letters = batch.claimed[s] >= shares[s].limit;
	else if (kind != CLAIM_IDLE)
		store_next_due(shares, nshares, DT_NOBEGIN);
	worker_commit();

	announce_batch(&batch);
	observe_batch(&batch);
	slot_count_up(COUNT_CYCLES, nclaimed > 0);
	slot_count_up(COUNT_CLAIMED, nclaimed);
	slot_count_up(kind == CLAIM_DEAD_LETTER ? COUNT_DEAD_LETTERS : COUNT_SENT, batch.nsent);
	slot_count_up(COUNT_REFUSED, kind == CLAIM_DEAD_LETTER ? 0 : batch.nrefused);
	slot_count_up(COUNT_EXPIRED, batch.nexpired);
	slot_count_up(COUNT_BYTES, batch.bytes);
	log_batch(&batch);
	producer_proven |= batch.nsent > 0;
	if (batch.gave_up)
		return give_up(&batch);

	if (nclaimed >= batch_limit)
		batch_limit *= 2;
	batch_limit = Min(setting_batch_size, Max(batch_limit, FIRST_BATCH));
	return nclaimed > 0;
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
		channel->dead_letters |= notes[i].due != DT_NOEND;
	}
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

/* Look from the beginning, for what no note told of. */
static void
look(void)
{
	ListCell   *lc;

	store_sweep(WAITING_IDLE, found_idle);
	store_sweep_due();
	foreach(lc, channels)
		((Channel *) lfirst(lc))->dead_letters = true;
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
			return channel->next_due <= now;
		case CLAIM_DEAD_LETTER:
			return channel->dead_letters;
		default:
			return channel->resend_after != 0 && channel->ack != ACK_NONE && channel->next_resend <= now;
	}
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

		if (channel->topic == NULL || channel->paused)
			continue;
		if ((channel->pace.batch > 0 && kind != CLAIM_DEAD_LETTER) || !has_rows(channel, kind, now))
			continue;
		if (kind == CLAIM_RESEND)
			channel->next_resend = now + Max(USECS_PER_SEC, channel->resend_after / 4);
		(*shares)[n].low = channel->low;
		(*shares)[n++].channel = channel;
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

	if (!pace_open(channel, now))
		return false;
	for (int kind = CLAIM_IDLE; kind <= CLAIM_RESEND; kind++)
		while (pace_left(channel) > 0 && has_rows(channel, kind, now))
		{
			ClaimShare	share = {.channel = channel,.low = channel->low,.limit = Min(pace_left(channel), batch_limit)};

			if (kind == CLAIM_RESEND)
				channel->next_resend = now + Max(USECS_PER_SEC, channel->resend_after / 4);
			if (!broker_answers() || !topics_prepare(kind, &share, 1))
				return any;
			if (!relay_batch(kind, &share, 1))
				break;
			any = true;
		}
	/* unless it was given up */
	if (backoff == 0)
		pace_close(channel);
	return any;
}

/* Relay one batch of each kind that there is.  Returns whether there was any. */
static bool
relay_all(TimestampTz now)
{
	bool		any = false;
	ListCell   *lc;

	for (int kind = CLAIM_IDLE; kind <= CLAIM_DEAD_LETTER; kind++)
	{
		ClaimShare *shares;
		int			nshares = share_out(kind, now, &shares);

		if (nshares == 0)
			continue;
		if (!broker_answers() || !topics_prepare(kind, shares, nshares))
			return false;
		any |= relay_batch(kind, shares, nshares);
	}
	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->pace.batch > 0 && channel->topic && !channel->paused)
			any |= relay_run(channel, now);
	}
	return any;
}

/* Milliseconds until there may be something to do that nobody tells us of. */
static long
idle_time(TimestampTz now)
{
	TimestampTz until = DT_NOEND;
	ListCell   *lc;

	if (backoff > 0)
		return Max(1, TimestampDifferenceMilliseconds(now, ask_again_at));
	foreach(lc, channels)
	{
		Channel    *channel = lfirst(lc);

		if (channel->topic == NULL || channel->paused)
			continue;
		if (channel->pace.batch > 0)
		{
			until = Min(until, pace_next(channel));
			continue;
		}
		until = Min(until, channel->next_due);
		if (channel->resend_after > 0 && channel->ack != ACK_NONE)
			until = Min(until, channel->next_resend);
	}
	/* round up, lest a due time is missed by less than a millisecond */
	return Min(Min(setting_poll_interval, worker_sweep_in()), TimestampDifferenceMilliseconds(now, until) + 1);
}

/* Main loop of a relay worker. */
void
relay_main(void)
{
	Oid			extension = InvalidOid;

	batch_context = AllocSetContextCreate(TopMemoryContext, "msgsys batch",
										  ALLOCSET_DEFAULT_SIZES);
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
			topics_forget();
			extension = installation.extension;
		}
		if (reloaded)
		{
			want_notes();
			worker_want_sweep();
		}
		worker_sweep(look);
		if (relay_all(clock_now()))
			continue;
		if (broker_answers())
			slot_state(channels_all_paused() ? WORKER_PAUSED : WORKER_IDLE);
		worker_rest(idle_time(clock_now()));
	}
}
