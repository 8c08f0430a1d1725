/*
 * flush.c
 *		Writes down what became of webhook requests, many in one transaction, and then
 *		forgets their jobs.
 */
#include "msgsys.h"

#include "backlog.h"
#include "delivered.h"
#include "flush.h"
#include "pace.h"
#include "shmem.h"
#include "store.h"
#include "store_webhook.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/timestamp.h"

#define FLUSH_COUNT		256		/* outcomes that are written at once, at least */
#define FLUSH_EVERY		2		/* ms between two times, however few there are */
#define LOCKED_AGAIN	300		/* ms between two tries at rows that users hold */

static dlist_head ended = DLIST_STATIC_INIT(ended); /* jobs whose outcome is not committed */
static int	nended = 0;
static TimestampTz last_flush = 0;
static TimestampTz locked_until = 0;	/* rows are held: no flush before that */
static bool any_breaker_changed = false;

/* An outcome is known: it is written down with others. */
void
flush_add(Job *job)
{
	dlist_push_tail(&ended, &job->node);
	nended++;
}

typedef struct Flush
{
	Job		  **jobs;			/* in the order of ids */
	WebhookMark *marks;
	int			n;
	bool	   *held;			/* somebody has the row */
	List	   *runs;			/* of PaceResult */
	bool		blocked;		/* somebody has the table */
} Flush;

static int
compare_jobs(const void *a, const void *b)
{
	int64		x = (*(Job *const *) a)->id;
	int64		y = (*(Job *const *) b)->id;

	return x < y ? -1 : x > y;
}

/* Write what depends on no message: breakers, webhooks that said that they are gone. */
static void
write_endpoints(Flush *flush)
{
	ListCell   *lc;

	for (int i = 0; i < flush->n; i++)
		if (flush->marks[i].verdict == VERDICT_HELD)
			store_webhook_disable(flush->marks[i].channel, flush->marks[i].error);
	if (!any_breaker_changed)
		return;
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		if (endpoint->breaker_changed)
			store_breaker(endpoint->name, slot_number(), &endpoint->breaker);
	}
}

/* Write what became of messages of runs. */
static void
write_runs(Flush *flush)
{
	ListCell   *lc;
	MemoryContext old;

	flush->runs = NIL;
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);
		PaceResult *result;

		if (!endpoint_is_paced(endpoint) || endpoint->channel->pace.in_memory == 0)
			continue;
		/* needed after the transaction */
		old = MemoryContextSwitchTo(cycle_context);
		result = palloc0(sizeof(PaceResult));
		flush->runs = lappend(flush->runs, result);
		MemoryContextSwitchTo(old);
		result->channel = endpoint->channel;
		for (int i = 0; i < flush->n; i++)
		{
			const WebhookMark *mark = &flush->marks[i];

			if (flush->jobs[i]->endpoint == endpoint && flush->jobs[i]->paced && !flush->held[i] && mark->verdict != VERDICT_EXPIRED)
				pace_count(result, mark->id, mark->verdict == VERDICT_DELIVERED, mark->error);
		}
		pace_write(result);
	}
}

/* The usual case: everything in one transaction. */
static void
mark_all(void *arg)
{
	Flush	   *flush = arg;

	flush->blocked = !store_lock_messages();
	if (flush->blocked)
		return;
	store_webhook_marks(flush->marks, flush->n);
	write_endpoints(flush);
	write_runs(flush);
}

/* Somebody holds rows: mark those that are free. */
static void
mark_free(void *arg)
{
	Flush	   *flush = arg;
	int64	   *ids = palloc(flush->n * sizeof(int64));
	WebhookMark *unheld = palloc(flush->n * sizeof(WebhookMark));
	int			n = 0;

	flush->blocked = !store_lock_messages();
	if (flush->blocked)
		return;
	for (int i = 0; i < flush->n; i++)
		ids[i] = flush->marks[i].id;
	slot_count_up(COUNT_POSTPONED, store_lock_free(ids, flush->n, flush->held));
	for (int i = 0; i < flush->n; i++)
		if (!flush->held[i])
			unheld[n++] = flush->marks[i];
	store_webhook_marks(unheld, n);
	write_endpoints(flush);
	write_runs(flush);
}

/* Count what was written. */
static void
count_marks(const Flush *flush)
{
	static const Counter counters[] = {
		[VERDICT_DELIVERED] = COUNT_DELIVERED,
		[VERDICT_RETRY] = COUNT_FAILED,
		[VERDICT_DEAD] = COUNT_DEAD,
		[VERDICT_EXPIRED] = COUNT_EXPIRED,
		[VERDICT_HELD] = COUNT_FAILED
	};
	int			counts[VERDICT_HELD + 1] = {0};

	for (int i = 0; i < flush->n; i++)
		if (!flush->held[i])
			counts[flush->marks[i].verdict]++;
	for (int v = 0; v <= VERDICT_HELD; v++)
		slot_count_up(counters[v], counts[v]);
	slot_count_up(COUNT_CYCLES, 1);
}

/* One line, for batches that are worth one. */
static void
log_flush(const Flush *flush, TimestampTz began)
{
	if (setting_log_batch < 0 || flush->n < Max(setting_log_batch, 1))
		return;
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys webhook finished %d attempts, ids " INT64_FORMAT " to " INT64_FORMAT ", written in %ld ms",
					flush->n, flush->marks[0].id, flush->marks[flush->n - 1].id,
					TimestampDifferenceMilliseconds(began, clock_now()))));
}

/* After the commit: jobs are forgotten, but for those whose rows were held. */
static void
settle(Flush *flush)
{
	uint64		buckets = 0;
	TimestampTz now = clock_now();
	Durations	deliver = {0};
	ListCell   *lc;

	dlist_init(&ended);
	nended = 0;
	for (int i = 0; i < flush->n; i++)
	{
		Job		   *job = flush->jobs[i];
		Verdict		verdict = flush->marks[i].verdict;

		if (flush->held[i])
		{
			flush_add(job);
			continue;
		}
		buckets |= status_bucket(job->id);
		if (job->was_idle && verdict != VERDICT_HELD)
			backlog_add(MyDatabaseId, job->endpoint->name, -1);
		if (verdict == VERDICT_DELIVERED)
		{
			durations_add(&deliver, now - job->claimed_at, 1);
			delivered_add(job, &flush->marks[i]);
		}
		if (verdict == VERDICT_HELD)
			endpoint_rewind(job->endpoint, job->id);
		job_done(job, verdict != VERDICT_RETRY && verdict != VERDICT_HELD);
	}
	status_changed(buckets);
	slot_observe(HISTOGRAM_DELIVER, &deliver);
	foreach(lc, flush->runs)
		pace_settle(lfirst(lc));
	foreach(lc, endpoints)
		((Endpoint *) lfirst(lc))->breaker_changed = false;
	any_breaker_changed = false;
	delivered_flush();
}

/* Write down the outcomes that there are. */
void
flush_write(TimestampTz now)
{
	Flush		flush = {.n = 0};
	dlist_iter	iter;

	last_flush = now;
	pgstat_report_activity(STATE_RUNNING, "writing outcomes");
	flush.jobs = palloc(Max(nended, 1) * sizeof(Job *));
	flush.marks = palloc(Max(nended, 1) * sizeof(WebhookMark));
	flush.held = palloc0(Max(nended, 1) * sizeof(bool));
	dlist_foreach(iter, &ended)
		flush.jobs[flush.n++] = dlist_container(Job, node, iter.cur);
	qsort(flush.jobs, flush.n, sizeof(Job *), compare_jobs);
	for (int i = 0; i < flush.n; i++)
		flush.marks[i] = flush.jobs[i]->mark;

	if (locked_until == 0 && worker_try(mark_all, &flush) && !flush.blocked)
		;
	else if (flush.blocked || !worker_try(mark_free, &flush) || flush.blocked)
	{
		/* all stay as they are, in memory */
		locked_until = TimestampTzPlusMilliseconds(now, LOCKED_AGAIN);
		return;
	}
	count_marks(&flush);
	if (flush.n > 0)
		log_flush(&flush, now);
	settle(&flush);
	locked_until = nended > 0 ? TimestampTzPlusMilliseconds(now, LOCKED_AGAIN) : 0;
}

/* Whether to write now: often where there are few, many at once where there are many, and at once where none is under way. */
bool
flush_is_due(TimestampTz now, bool under_way)
{
	if (now < locked_until)
		return false;
	if (nended == 0)
		return any_breaker_changed;
	return nended >= FLUSH_COUNT || !under_way || now >= TimestampTzPlusMilliseconds(last_flush, FLUSH_EVERY);
}

/* When it will be at the latest; DT_NOEND: there is nothing to write. */
TimestampTz
flush_due_at(void)
{
	return nended == 0 ? DT_NOEND : Max(TimestampTzPlusMilliseconds(last_flush, FLUSH_EVERY), locked_until);
}

/* How many outcomes wait to be written. */
int
flush_waiting(void)
{
	return nended;
}

/* The state of a circuit breaker has changed: it is written too. */
void
flush_breakers(void)
{
	any_breaker_changed = true;
}
