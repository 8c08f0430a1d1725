/*
 * flush.c
 *		Writes down what became of webhook requests, many in one transaction, and then
 *		forgets their jobs.
 *
 * What was answered stays in memory until it is written down, and is not sent again.  Where a
 * transaction fails, whatever the error, its halves are written each alone, and so on: an outcome that
 * cannot be written while others can goes aside, and is tried again alone, later and later; from the third
 * time on without what the endpoint has said.  Where none can be written it is the database: all
 * wait, and little more is sent meanwhile.  Rows that users hold go aside in the same way.
 */
#include "msgsys.h"

#include "backlog.h"
#include "compat.h"
#include "delivered.h"
#include "flush.h"
#include "monotonic.h"
#include "pace.h"
#include "shmem.h"
#include "store.h"
#include "store_webhook.h"
#include "webhook_claim.h"
#include "worker.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define FLUSH_COUNT		256		/* outcomes that are written at once, at least */
#define FLUSH_EVERY		2		/* ms between two times, however few there are */
#define LOCKED_AGAIN	300		/* ms between two tries at rows that users hold */
#define PAUSE_FIRST		300		/* ms after a failure; doubles */
#define PAUSE_LONGEST	10000
#define ASIDE_LONGEST	60000
#define PLAIN_FROM		3		/* failures alone, after which only the verdict is written */
#define ENOUGH			3		/* that fail alone while none succeeds: it is none of theirs */
#define UNWRITTEN_MOST	64		/* outcomes that cannot be written, with which more is sent */
#define WAL_WAITS		32		/* outcomes that may be lost by a crash of the server, about */

static dlist_head ended = DLIST_STATIC_INIT(ended); /* jobs whose outcome is not committed */
static int	nended = 0;
static dlist_head aside = DLIST_STATIC_INIT(aside); /* those that cannot be, while others can */
static int	naside = 0;
static int64 last_flush = 0;	/* these by now_ms() */
static int64 blocked_until = 0; /* nothing can be written: no flush before that */
static int64 endpoints_again = 0;
static int	failures = 0;		/* flushes in which nothing could be written, in a row */
static bool any_breaker_changed = false;
static int	unflushed = 0;		/* outcomes committed since WAL was last written */

/* An outcome is known: it is written down with others. */
void
flush_add(Job *job)
{
	dlist_push_tail(&ended, &job->node);
	nended++;
}

/* It cannot be written now: it is tried again alone, or with others of its kind. */
static void
put_aside(Job *job, int64 pause)
{
	job->again_ms = now_ms() + pause;
	dlist_push_tail(&aside, &job->node);
	naside++;
}

/* Outcomes to be written in one transaction. */
typedef struct Flush
{
	Job		  **jobs;			/* in the order of ids */
	WebhookMark *marks;
	int			n;
	bool	   *held;			/* somebody has the row */
	bool		only_free;		/* leave the rows that somebody has */
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

/* Write what depends on no message: breakers, webhooks that are to be disabled. */
static void
endpoints_work(void *arg)
{
	ListCell   *lc;

	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		if (endpoint->disable_reason)
			store_webhook_disable(endpoint->name, endpoint->disable_reason, endpoint->disable_asked_at);
		if (endpoint->breaker_changed)
			store_breaker(endpoint->name, slot_number(), &endpoint->breaker);
	}
}

static void
write_endpoints(void)
{
	ErrorData  *error;
	ListCell   *lc;

	if (!worker_try_any(endpoints_work, NULL, &error))
	{
		endpoints_again = now_ms() + PAUSE_FIRST;
		slot_error(error->message);
		return;
	}
	any_breaker_changed = false;
	foreach(lc, endpoints)
	{
		Endpoint   *endpoint = lfirst(lc);

		endpoint->breaker_changed = false;
		if (endpoint->disable_reason)
			pfree(endpoint->disable_reason);
		endpoint->disable_reason = NULL;
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

/* The transaction: all, or those whose rows are free. */
static void
flush_work(void *arg)
{
	Flush	   *flush = arg;
	WebhookMark *marks = flush->marks;
	int			n = flush->n;

	flush->blocked = !store_lock_messages();
	if (flush->blocked)
		return;
	if (flush->only_free)
	{
		int64	   *ids = palloc(flush->n * sizeof(int64));

		marks = palloc(flush->n * sizeof(WebhookMark));
		n = 0;
		for (int i = 0; i < flush->n; i++)
			ids[i] = flush->marks[i].id;
		slot_count_up(COUNT_POSTPONED, store_lock_free(ids, flush->n, flush->held));
		for (int i = 0; i < flush->n; i++)
			if (!flush->held[i])
				marks[n++] = flush->marks[i];
	}
	store_webhook_marks(marks, n);
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
log_flush(const Flush *flush, int64 began)
{
	if (setting_log_batch < 0 || flush->n < Max(setting_log_batch, 1))
		return;
	ereport(LOG,
			(errhidecontext(true), errhidestmt(true),
			 errmsg("msgsys webhook finished %d attempts, ids " INT64_FORMAT " to " INT64_FORMAT ", written in " INT64_FORMAT " ms",
					flush->n, flush->marks[0].id, flush->marks[flush->n - 1].id, now_ms() - began)));
}

/* After the commit: jobs are forgotten, but for those whose rows were held. */
static void
settle(Flush *flush)
{
	uint64		buckets = 0;
	int64		now = now_us();
	Durations	deliver = {0};
	ListCell   *lc;

	for (int i = 0; i < flush->n; i++)
	{
		Job		   *job = flush->jobs[i];
		Verdict		verdict = flush->marks[i].verdict;

		if (flush->held[i])
		{
			put_aside(job, LOCKED_AGAIN);
			continue;
		}
		buckets |= status_bucket(job->id);
		if (job->was_idle && verdict != VERDICT_HELD)
			backlog_add(MyDatabaseId, job->endpoint->name, -1);
		if (verdict == VERDICT_DELIVERED)
		{
			durations_add(&deliver, now - job->claimed_us, 1);
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
	delivered_flush();
}

/*
 * Commits of workers are asynchronous, and a crash takes back what is not in the WAL's
 * file by then, up to a megabyte: so many requests would be made again.  Have the WAL writer
 * write, which costs it a system call and us none; that it reaches the disk is its own affair.
 */
static void
have_wal_written(int n)
{
	unflushed += n;
	if (unflushed < WAL_WAITS)
		return;
	compat_wake_walwriter();
	unflushed = 0;
}

/* ---------------------------------------------------------------- failures */

/* How a flush goes. */
typedef struct Round
{
	int			written;		/* outcomes */
	int			failed;			/* alone */
	List	   *failures;		/* of Job: those */
	List	   *left;			/* of Job: not tried any more */
	ErrorData  *error;			/* the last one */
	bool		blocked;		/* somebody has the table */
} Round;

/* Only the verdict, for what the endpoint said may be what cannot be written. */
static void
make_plain(WebhookMark *mark)
{
	mark->keep = false;
	mark->response_id = NULL;
	mark->excerpt = NULL;
	mark->address = NULL;
	mark->error = mark->error ? "what the endpoint said could not be written down" : NULL;
}

/* Say it once, of each message. */
static void
log_unwritten(const Job *job, const ErrorData *error)
{
	slot_error(error->message);
	if (job->unwritten == 1)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("msgsys could not write down what became of message " INT64_FORMAT " of channel \"%s\": %s",
						job->id, job->endpoint->name, error->message),
				 errdetail("It stays in memory and is tried again; the message is not sent again meanwhile.")));
}

/* Write outcomes, in the order of ids; those that cannot be written are found by halves. */
static void
write_jobs(Job **jobs, int n, bool only_free, Round *round)
{
	Flush		flush = {.jobs = jobs,.n = n,.only_free = only_free};
	int64		began = now_ms();
	ErrorData  *error;

	/* when some fail alone and none succeeds, the others would too */
	if (round->blocked || (round->written == 0 && round->failed >= ENOUGH))
	{
		for (int i = 0; i < n; i++)
			round->left = lappend(round->left, jobs[i]);
		return;
	}
	flush.marks = palloc(Max(n, 1) * sizeof(WebhookMark));
	flush.held = palloc0(Max(n, 1) * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		flush.marks[i] = jobs[i]->mark;
		if (jobs[i]->unwritten >= PLAIN_FROM)
			make_plain(&flush.marks[i]);
	}
	if (worker_try_any(flush_work, &flush, &error))
	{
		if (flush.blocked)
		{
			round->blocked = true;
			for (int i = 0; i < n; i++)
				round->left = lappend(round->left, jobs[i]);
			return;
		}
		round->written += n;
		count_marks(&flush);
		log_flush(&flush, began);
		have_wal_written(n);
		settle(&flush);
		return;
	}
	round->error = error;
	if (!only_free && error_is_of_locks(error))
		write_jobs(jobs, n, true, round);	/* somebody has rows */
	else if (n > 1)
	{
		write_jobs(jobs, n / 2, only_free, round);
		write_jobs(jobs + n / 2, n - n / 2, only_free, round);
	}
	else
	{
		round->failed++;
		round->failures = lappend(round->failures, jobs[0]);
	}
}

/* Nothing can be written: all wait in memory. */
static void
wait_for_database(const Round *round)
{
	int64		pause = round->blocked ? LOCKED_AGAIN : Min((int64) PAUSE_FIRST << Min(failures, 10), PAUSE_LONGEST);

	blocked_until = now_ms() + pause;
	if (round->blocked)
		return;
	if (failures++ == 0)
		ereport(LOG,
				(errcode(round->error->sqlerrcode),
				 errmsg("msgsys could not write down what became of messages: %s", round->error->message),
				 errdetail("It stays in memory and is tried again; nothing is sent again meanwhile.")));
	slot_error(round->error->message);
}

/* After a round: where do those belong that were not written? */
static void
sort_out(Round *round)
{
	ListCell   *lc;
	bool		nothing = round->written == 0 && (round->failed > 0 || round->blocked);

	foreach(lc, round->failures)
	{
		Job		   *job = lfirst(lc);

		if (nothing)
		{
			flush_add(job);
			continue;
		}
		/* it has failed alone while others were written */
		job->unwritten++;
		log_unwritten(job, round->error);
		put_aside(job, Min((int64) PAUSE_FIRST << Min(job->unwritten, 10), ASIDE_LONGEST));
	}
	foreach(lc, round->left)
		flush_add(lfirst(lc));
	if (nothing)
		wait_for_database(round);
	else if (round->written > 0)
	{
		blocked_until = 0;
		failures = 0;
	}
}

static void
write_list(Job **jobs, int n, bool only_free)
{
	Round		round = {0};

	qsort(jobs, n, sizeof(Job *), compare_jobs);
	write_jobs(jobs, n, only_free, &round);
	sort_out(&round);
}

/* Those that were put aside, and whose time has come. */
static void
write_aside(void)
{
	Job		  **jobs = palloc(Max(naside, 1) * sizeof(Job *));
	dlist_mutable_iter iter;
	int			n = 0;
	int64		now = now_ms();

	dlist_foreach_modify(iter, &aside)
	{
		Job		   *job = dlist_container(Job, node, iter.cur);

		if (job->again_ms > now)
			continue;
		dlist_delete(iter.cur);
		naside--;
		jobs[n++] = job;
	}
	if (n > 0)
		write_list(jobs, n, true);
}

/* Write down the outcomes that there are. */
void
flush_write(void)
{
	Job		  **jobs = palloc(Max(nended, 1) * sizeof(Job *));
	int			n = 0;
	dlist_iter	iter;

	last_flush = now_ms();
	pgstat_report_activity(STATE_RUNNING, "writing outcomes");
	dlist_foreach(iter, &ended)
		jobs[n++] = dlist_container(Job, node, iter.cur);
	dlist_init(&ended);
	nended = 0;
	if (n > 0)
		write_list(jobs, n, false);
	if (naside > 0 && blocked_until == 0)
		write_aside();
	if (any_breaker_changed && endpoints_again <= last_flush)
		write_endpoints();
}

/* ---------------------------------------------------------------- when */

/* By now_ms(), when something put aside is tried again; NEVER_MS. */
static int64
aside_at(void)
{
	int64		at = NEVER_MS;
	dlist_iter	iter;

	dlist_foreach(iter, &aside)
		at = Min(at, dlist_container(Job, node, iter.cur)->again_ms);
	return at;
}

/* Whether to write now: often where there are few, many at once where there are many, and at once where none is under way. */
bool
flush_is_due(bool under_way)
{
	int64		now = now_ms();

	if (now < blocked_until)
		return false;
	if (any_breaker_changed && endpoints_again <= now)
		return true;
	if (nended > 0 && (nended >= FLUSH_COUNT || !under_way || now >= last_flush + FLUSH_EVERY))
		return true;
	return naside > 0 && aside_at() <= now;
}

/* Milliseconds until it will be, at the latest; NEVER_MS: there is nothing to write. */
int64
flush_due_in(void)
{
	int64		at = aside_at();

	if (nended > 0)
		at = Min(at, last_flush + FLUSH_EVERY);
	if (any_breaker_changed)
		at = Min(at, endpoints_again);
	return at == NEVER_MS ? NEVER_MS : Max(Max(at, blocked_until) - now_ms(), 0);
}

/* How many outcomes wait to be written. */
int
flush_waiting(void)
{
	return nended + naside;
}

/* Whether outcomes are about to be written. */
bool
flush_is_busy(void)
{
	return nended > 0;
}

/* Whether so many cannot be written that nothing more is to be sent. */
bool
flush_is_stuck(void)
{
	return blocked_until > 0 && nended >= UNWRITTEN_MOST;
}

/* The state of a circuit breaker has changed, or a webhook is to be disabled: that is written too. */
void
flush_breakers(void)
{
	any_breaker_changed = true;
}
