-- msgsys.sql: everything that CREATE EXTENSION msgsys makes. The Makefile copies it to
-- sql/msgsys--VERSION.sql; released versions are changed by upgrade scripts.

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION msgsys" to load this file. \quit

-- ---------------------------------------------------------------- types

CREATE TYPE @extschema@.msg_status AS ENUM
	('scheduled', 'idle', 'sent', 'received', 'retry', 'delivered', 'dead', 'cancelled', 'expired');
COMMENT ON TYPE @extschema@.msg_status IS
'where a message is: scheduled and retry wait for due_at, idle waits for a worker, sent is in Kafka, received was acknowledged; delivered, dead, cancelled and expired are final';

-- ---------------------------------------------------------------- clock

/* msg_now(): the time by which messages come due and expire: that of the system, and msgsys.clock_offset. */
CREATE FUNCTION @extschema@.msg_now() RETURNS timestamptz
AS 'MODULE_PATHNAME', 'msg_now' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_now IS 'the time by which messages come due and expire';

-- ---------------------------------------------------------------- tables

-- The eight-byte columns stand first, so that a row has no padding between them.
CREATE TABLE @extschema@.messages (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	due_at			timestamptz,
	expires_at		timestamptz,
	sent_at			timestamptz,
	received_at		timestamptz,
	delivered_at	timestamptz,
	finished_at		timestamptz,
	kafka_offset	bigint,
	kafka_partition	integer,
	status			@extschema@.msg_status NOT NULL DEFAULT 'idle',
	attempts		integer NOT NULL DEFAULT 0,
	response_code	integer,
	channel			text NOT NULL DEFAULT 'default',
	message_key		text,
	event_type		text,
	content_type	text,
	headers			jsonb,
	payload			jsonb,
	body			bytea,
	dedup_key		text,
	response_id		text,
	last_error		text,
	dlq_pending		boolean,
	-- The trigger checks the rest: a constraint costs each worker's UPDATE.
	CONSTRAINT messages_payload_or_body CHECK ((payload IS NULL) <> (body IS NULL))
) WITH (
	-- Dead rows must go while their index entries are few, whatever the size of the table.
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
	autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE @extschema@.messages IS 'the outbox: one row a message, from its creation to its end; a plain INSERT or COPY is as good as msg_create()';
COMMENT ON COLUMN @extschema@.messages.id IS 'given by the database; together with the installation''s uuid it names the message everywhere (header ce_id)';
COMMENT ON COLUMN @extschema@.messages.created_at IS 'start of the transaction that created it';
COMMENT ON COLUMN @extschema@.messages.due_at IS 'not sent before this time';
COMMENT ON COLUMN @extschema@.messages.expires_at IS 'not sent after this time: the message ends as expired';
COMMENT ON COLUMN @extschema@.messages.sent_at IS 'when Kafka confirmed it the last time';
COMMENT ON COLUMN @extschema@.messages.received_at IS 'when it was acknowledged, as the channel''s ack setting says';
COMMENT ON COLUMN @extschema@.messages.delivered_at IS 'when a webhook or a consumer had done with it';
COMMENT ON COLUMN @extschema@.messages.finished_at IS 'when it came to its end; null while msgsys still has something to do or to wait for';
COMMENT ON COLUMN @extschema@.messages.kafka_partition IS 'partition of its latest record';
COMMENT ON COLUMN @extschema@.messages.kafka_offset IS 'offset of its latest record';
COMMENT ON COLUMN @extschema@.messages.status IS 'where it is now';
COMMENT ON COLUMN @extschema@.messages.attempts IS 'how often it was sent, refused attempts included';
COMMENT ON COLUMN @extschema@.messages.response_code IS 'status code of the webhook''s latest answer';
COMMENT ON COLUMN @extschema@.messages.channel IS 'the path it takes; see msg_channels';
COMMENT ON COLUMN @extschema@.messages.message_key IS 'key of the Kafka record (the id where null); messages of one key are sent in the order of their ids; at most 1 kB';
COMMENT ON COLUMN @extschema@.messages.event_type IS 'what happened, such as order.created (header ce_type)';
COMMENT ON COLUMN @extschema@.messages.content_type IS 'media type of the value; null means application/json for a payload, application/octet-stream for a body';
COMMENT ON COLUMN @extschema@.messages.headers IS 'headers of the record: an object of strings';
COMMENT ON COLUMN @extschema@.messages.payload IS 'the value, as JSON; exactly one of payload and body';
COMMENT ON COLUMN @extschema@.messages.body IS 'the value, as bytes; exactly one of payload and body';
COMMENT ON COLUMN @extschema@.messages.dedup_key IS 'unique within the channel for as long as the row is kept';
COMMENT ON COLUMN @extschema@.messages.response_id IS 'the id that the webhook''s answer named';
COMMENT ON COLUMN @extschema@.messages.last_error IS 'why the latest attempt failed';
COMMENT ON COLUMN @extschema@.messages.dlq_pending IS 'true while a dead message is still to be written to its channel''s dead letter topic';

-- Only what is live is indexed: besides these, the primary key and the deduplication key.
CREATE INDEX messages_idle ON @extschema@.messages (channel, id) WHERE status = 'idle';
CREATE INDEX messages_due ON @extschema@.messages (channel, due_at) WHERE status IN ('scheduled', 'retry');
CREATE INDEX messages_unacknowledged ON @extschema@.messages (channel, sent_at) WHERE status = 'sent' AND finished_at IS NULL;
CREATE INDEX messages_received ON @extschema@.messages (channel, id) WHERE status = 'received' AND finished_at IS NULL;
CREATE INDEX messages_dead_letters ON @extschema@.messages (channel, id) WHERE dlq_pending;
CREATE UNIQUE INDEX messages_dedup ON @extschema@.messages (channel, dedup_key) WHERE dedup_key IS NOT NULL;

CREATE TABLE @extschema@.msg_channels (
	channel			text PRIMARY KEY,
	topic			text,
	ack				text NOT NULL DEFAULT 'readback',
	max_attempts	integer NOT NULL DEFAULT 10,
	retry_base		interval NOT NULL DEFAULT '5 s',
	retry_max		interval NOT NULL DEFAULT '1 h',
	resend_after	interval,
	former_topics	text[],
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_by		text NOT NULL DEFAULT CURRENT_USER,
	CONSTRAINT msg_channels_name CHECK (channel ~ '^[A-Za-z0-9._:-]{1,63}$'),
	CONSTRAINT msg_channels_topic CHECK (topic ~ '^[A-Za-z0-9._-]{1,249}$' AND topic NOT IN ('.', '..')),
	CONSTRAINT msg_channels_ack CHECK (ack IN ('none', 'readback', 'topic')),
	CONSTRAINT msg_channels_attempts CHECK (max_attempts BETWEEN 1 AND 1000),
	CONSTRAINT msg_channels_retry CHECK (retry_base > '0' AND retry_max >= retry_base AND retry_max <= '30 days'),
	CONSTRAINT msg_channels_resend CHECK (resend_after >= '1 s')
);
COMMENT ON TABLE @extschema@.msg_channels IS 'the paths that messages take; set them with msg_channel_set(). The channel "default" exists without a row too, its settings then come from the configuration';
COMMENT ON COLUMN @extschema@.msg_channels.channel IS 'name: 1 to 63 of letters, digits and ._:-';
COMMENT ON COLUMN @extschema@.msg_channels.topic IS 'Kafka topic; null: the channel has none';
COMMENT ON COLUMN @extschema@.msg_channels.ack IS 'what makes a sent message received: none (it ends as sent), readback (msgsys read it back from Kafka), topic (a consumer wrote to the acknowledgement topic)';
COMMENT ON COLUMN @extschema@.msg_channels.max_attempts IS 'attempts after which a message is dead';
COMMENT ON COLUMN @extschema@.msg_channels.retry_base IS 'longest wait before the second attempt; doubles with each one, the wait is a random share of it';
COMMENT ON COLUMN @extschema@.msg_channels.retry_max IS 'longest wait before any attempt';
COMMENT ON COLUMN @extschema@.msg_channels.resend_after IS 'send again what has not been acknowledged for so long; null: never';
COMMENT ON COLUMN @extschema@.msg_channels.former_topics IS 'topics it had before, still read for acknowledgements while messages are on the way';
COMMENT ON COLUMN @extschema@.msg_channels.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_channels.updated_at IS 'when it was last changed';
COMMENT ON COLUMN @extschema@.msg_channels.updated_by IS 'who changed it last';

CREATE TABLE @extschema@.msg_webhooks (
	channel			text PRIMARY KEY,
	url				text NOT NULL,
	method			text NOT NULL DEFAULT 'POST',
	headers			jsonb,
	body_template	jsonb,
	cloudevents		boolean NOT NULL DEFAULT false,
	timeout			interval NOT NULL DEFAULT '15 s',
	connect_timeout	interval NOT NULL DEFAULT '5 s',
	success_codes	integer[],
	retry_codes		integer[],
	retry_schedule	interval[] DEFAULT '{5 s,5 min,30 min,2 h,5 h,10 h,14 h,20 h,24 h}',
	retry_after_max	interval NOT NULL DEFAULT '1 day',
	concurrency		integer NOT NULL DEFAULT 64,
	rate			double precision,
	ordered			boolean NOT NULL DEFAULT false,
	http2			boolean NOT NULL DEFAULT false,
	redirects		integer NOT NULL DEFAULT 0,
	ca_file			text,
	proxy			text,
	keep_attempts	boolean NOT NULL DEFAULT false,
	breaker_share	double precision NOT NULL DEFAULT 0.5,
	breaker_calls	integer NOT NULL DEFAULT 20,
	breaker_window	interval NOT NULL DEFAULT '30 s',
	breaker_pause	interval NOT NULL DEFAULT '5 s',
	breaker_pause_max interval NOT NULL DEFAULT '5 min',
	disabled_at		timestamptz,
	disabled_reason	text,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_by		text NOT NULL DEFAULT CURRENT_USER,
	CONSTRAINT msg_webhooks_method CHECK (method IN ('POST', 'PUT')),
	CONSTRAINT msg_webhooks_timeouts CHECK (timeout BETWEEN '1 ms' AND '10 min' AND connect_timeout BETWEEN '1 ms' AND '10 min'),
	CONSTRAINT msg_webhooks_limits CHECK (concurrency BETWEEN 1 AND 10000 AND rate > 0 AND redirects BETWEEN 0 AND 20),
	CONSTRAINT msg_webhooks_breaker CHECK (breaker_share > 0 AND breaker_calls > 0 AND breaker_window BETWEEN '1 s' AND '1 h'
		AND breaker_pause BETWEEN '1 ms' AND breaker_pause_max AND breaker_pause_max <= '1 day'),
	CONSTRAINT msg_webhooks_retry CHECK (retry_after_max >= '0')
);
COMMENT ON TABLE @extschema@.msg_webhooks IS 'the HTTP endpoints that channels deliver to, a row a channel at most; set them with msg_webhook_set()';
COMMENT ON COLUMN @extschema@.msg_webhooks.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_webhooks.url IS 'http or https, where {id}, {key} and {event_type} stand for the message''s own, percent-encoded';
COMMENT ON COLUMN @extschema@.msg_webhooks.method IS 'POST or PUT';
COMMENT ON COLUMN @extschema@.msg_webhooks.headers IS 'headers of each request: an object of strings; secret ones are in msg_webhook_secrets';
COMMENT ON COLUMN @extschema@.msg_webhooks.body_template IS 'JSON whose strings may have {id}, {uuid}, {key}, {event_type}, {channel}, {created_at}, {attempt}, {payload} and {payload.a.b}: a string that is such a placeholder alone becomes the value itself; null: the payload is the body';
COMMENT ON COLUMN @extschema@.msg_webhooks.cloudevents IS 'whether requests carry the headers of CloudEvents 1.0 (ce-id, ce-source, ce-type, ce-time)';
COMMENT ON COLUMN @extschema@.msg_webhooks.timeout IS 'longest time of an attempt, from its start to the end of the answer';
COMMENT ON COLUMN @extschema@.msg_webhooks.connect_timeout IS 'longest time to look up the name and to connect';
COMMENT ON COLUMN @extschema@.msg_webhooks.success_codes IS 'status codes that mean delivered; null: 200 to 299';
COMMENT ON COLUMN @extschema@.msg_webhooks.retry_codes IS 'status codes that are tried again; null: 408, 425, 429 and 500 to 599';
COMMENT ON COLUMN @extschema@.msg_webhooks.retry_schedule IS 'waits before the second attempt, the third and so on, the last for all that follow, each with a random tenth more; null: exponential with full jitter, from the channel''s retry_base to its retry_max';
COMMENT ON COLUMN @extschema@.msg_webhooks.retry_after_max IS 'longest Retry-After that is obeyed; a longer one counts as this';
COMMENT ON COLUMN @extschema@.msg_webhooks.concurrency IS 'most requests at once, of each worker';
COMMENT ON COLUMN @extschema@.msg_webhooks.rate IS 'most requests a second, of all workers together; null: no limit';
COMMENT ON COLUMN @extschema@.msg_webhooks.ordered IS 'whether a message waits until the one before it of the same key is final';
COMMENT ON COLUMN @extschema@.msg_webhooks.http2 IS 'whether HTTP/2 is offered (with TLS)';
COMMENT ON COLUMN @extschema@.msg_webhooks.redirects IS 'how many redirects are followed; the address of each is checked';
COMMENT ON COLUMN @extschema@.msg_webhooks.ca_file IS 'bundle of certificates that the endpoint''s must be signed by one of; null: the system''s';
COMMENT ON COLUMN @extschema@.msg_webhooks.proxy IS 'URL of a proxy, whose address is checked in place of the endpoint''s: what it connects to is its own affair; null: none, whatever the environment says';
COMMENT ON COLUMN @extschema@.msg_webhooks.keep_attempts IS 'whether successful attempts are rows of msg_attempts too';
COMMENT ON COLUMN @extschema@.msg_webhooks.breaker_share IS 'share of failures (1 is all) at which the circuit breaker opens; above 1: never';
COMMENT ON COLUMN @extschema@.msg_webhooks.breaker_calls IS 'least number of calls within the window before it may open';
COMMENT ON COLUMN @extschema@.msg_webhooks.breaker_window IS 'time over which calls are counted';
COMMENT ON COLUMN @extschema@.msg_webhooks.breaker_pause IS 'how long it stays open at first; doubles each time that the probe fails';
COMMENT ON COLUMN @extschema@.msg_webhooks.breaker_pause_max IS 'how long it stays open at most';
COMMENT ON COLUMN @extschema@.msg_webhooks.disabled_at IS 'since when nothing is sent there and messages wait; by an answer 410, or by hand; see msg_webhook_enable()';
COMMENT ON COLUMN @extschema@.msg_webhooks.disabled_reason IS 'why';
COMMENT ON COLUMN @extschema@.msg_webhooks.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_webhooks.updated_at IS 'when it was last changed';
COMMENT ON COLUMN @extschema@.msg_webhooks.updated_by IS 'who changed it last';

CREATE TABLE @extschema@.msg_webhook_secrets (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	channel			text NOT NULL,
	kind			text NOT NULL,
	name			text NOT NULL DEFAULT '',
	value			text NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	expires_at		timestamptz,
	CONSTRAINT msg_webhook_secrets_kind CHECK (kind IN ('signing', 'header', 'bearer', 'basic', 'client_cert', 'client_key'))
);
CREATE UNIQUE INDEX msg_webhook_secrets_one ON @extschema@.msg_webhook_secrets (channel, kind, name) WHERE kind <> 'signing';
COMMENT ON TABLE @extschema@.msg_webhook_secrets IS 'what only the workers may read: signing secrets, secret headers, credentials; msg_grant() lets nobody else';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.id IS 'a number';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.kind IS 'signing, header, bearer, basic, client_cert or client_key';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.name IS 'a header''s name';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.value IS 'the secret';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.created_at IS 'when it was set';
COMMENT ON COLUMN @extschema@.msg_webhook_secrets.expires_at IS 'a signing secret is used until then; null: until it is replaced';

CREATE TABLE @extschema@.msg_attempts (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	message_id		bigint NOT NULL,
	channel			text NOT NULL,
	attempt			integer NOT NULL,
	at				timestamptz NOT NULL,
	milliseconds	integer NOT NULL,
	class			text NOT NULL,
	code			integer,
	address			text,
	error			text,
	excerpt			text
);
CREATE INDEX msg_attempts_message ON @extschema@.msg_attempts (message_id);
COMMENT ON TABLE @extschema@.msg_attempts IS 'a row for each webhook attempt that failed, or for every one where the channel keeps them (keep_attempts)';
COMMENT ON COLUMN @extschema@.msg_attempts.id IS 'in the order of their ends';
COMMENT ON COLUMN @extschema@.msg_attempts.message_id IS 'the message''s id; it may be gone';
COMMENT ON COLUMN @extschema@.msg_attempts.channel IS 'its channel';
COMMENT ON COLUMN @extschema@.msg_attempts.attempt IS 'the number of this attempt, from 1';
COMMENT ON COLUMN @extschema@.msg_attempts.at IS 'when it ended';
COMMENT ON COLUMN @extschema@.msg_attempts.milliseconds IS 'how long it took';
COMMENT ON COLUMN @extschema@.msg_attempts.class IS 'delivered, status (an answer that is none), timeout, resolve, connect, tls, broken, address (refused before anything was sent) or request (cannot be made)';
COMMENT ON COLUMN @extschema@.msg_attempts.code IS 'status code of the answer, if there was any';
COMMENT ON COLUMN @extschema@.msg_attempts.address IS 'the address that was connected to';
COMMENT ON COLUMN @extschema@.msg_attempts.error IS 'what went wrong';
COMMENT ON COLUMN @extschema@.msg_attempts.excerpt IS 'the beginning of the answer, at most 1 kB';

CREATE TABLE @extschema@.msg_breakers (
	channel			text NOT NULL,
	worker			integer NOT NULL,
	state			text NOT NULL,
	since			timestamptz NOT NULL,
	until			timestamptz,
	calls			integer NOT NULL,
	failures		integer NOT NULL,
	trips			integer NOT NULL,
	PRIMARY KEY (channel, worker)
);
COMMENT ON TABLE @extschema@.msg_breakers IS 'circuit breakers that have opened and not yet closed again, one a channel and worker; while it is open nothing is sent and no attempt is used up';
COMMENT ON COLUMN @extschema@.msg_breakers.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_breakers.worker IS 'number of the webhook worker';
COMMENT ON COLUMN @extschema@.msg_breakers.state IS 'open (nothing is sent until the time in until) or half-open (one request is sent as a probe)';
COMMENT ON COLUMN @extschema@.msg_breakers.since IS 'since when';
COMMENT ON COLUMN @extschema@.msg_breakers.until IS 'when the next probe is due';
COMMENT ON COLUMN @extschema@.msg_breakers.calls IS 'calls within the window when it opened';
COMMENT ON COLUMN @extschema@.msg_breakers.failures IS 'how many of them had failed';
COMMENT ON COLUMN @extschema@.msg_breakers.trips IS 'how often it opened since it was last closed';

CREATE TABLE @extschema@.msg_pauses (
	channel			text PRIMARY KEY,
	reason			text,
	paused_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	paused_by		text NOT NULL DEFAULT CURRENT_USER
);
COMMENT ON TABLE @extschema@.msg_pauses IS 'what is paused now: a row a channel, or the channel "*" for all of them; see msg_pause() and msg_resume()';
COMMENT ON COLUMN @extschema@.msg_pauses.channel IS 'the channel, or * for all';
COMMENT ON COLUMN @extschema@.msg_pauses.reason IS 'why, in the words of who paused it';
COMMENT ON COLUMN @extschema@.msg_pauses.paused_at IS 'since when';
COMMENT ON COLUMN @extschema@.msg_pauses.paused_by IS 'who paused it';

CREATE TABLE @extschema@.msg_pause_log (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	channel			text NOT NULL,
	action			text NOT NULL,
	reason			text,
	at				timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	by				text NOT NULL DEFAULT CURRENT_USER,
	CONSTRAINT msg_pause_log_action CHECK (action IN ('pause', 'resume'))
);
COMMENT ON TABLE @extschema@.msg_pause_log IS 'each pause and its end: who, when and why';
COMMENT ON COLUMN @extschema@.msg_pause_log.id IS 'a number';
COMMENT ON COLUMN @extschema@.msg_pause_log.channel IS 'the channel, or * for all';
COMMENT ON COLUMN @extschema@.msg_pause_log.action IS 'pause or resume';
COMMENT ON COLUMN @extschema@.msg_pause_log.reason IS 'why, in the words of who did it';
COMMENT ON COLUMN @extschema@.msg_pause_log.at IS 'when';
COMMENT ON COLUMN @extschema@.msg_pause_log.by IS 'who';

CREATE TABLE @extschema@.msg_paces (
	channel			text PRIMARY KEY,
	batch			integer NOT NULL,
	every			interval NOT NULL,
	next_at			timestamptz NOT NULL,
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_by		text NOT NULL DEFAULT CURRENT_USER,
	CONSTRAINT msg_paces_batch CHECK (batch > 0),
	CONSTRAINT msg_paces_every CHECK (every BETWEEN '10 ms' AND '1 year')
);
COMMENT ON TABLE @extschema@.msg_paces IS 'channels that send so many messages at a time; set them with msg_pace_set()';
COMMENT ON COLUMN @extschema@.msg_paces.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_paces.batch IS 'most messages of a run';
COMMENT ON COLUMN @extschema@.msg_paces.every IS 'time from run to run';
COMMENT ON COLUMN @extschema@.msg_paces.next_at IS 'when the next run is due; kept over restarts';
COMMENT ON COLUMN @extschema@.msg_paces.updated_at IS 'when it was last set';
COMMENT ON COLUMN @extschema@.msg_paces.updated_by IS 'who set it';

CREATE TABLE @extschema@.msg_runs (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	channel			text NOT NULL,
	due_at			timestamptz NOT NULL,
	started_at		timestamptz NOT NULL,
	finished_at		timestamptz,
	claimed			integer NOT NULL DEFAULT 0,
	succeeded		integer NOT NULL DEFAULT 0,
	failed			integer NOT NULL DEFAULT 0,
	first_id		bigint,
	last_id			bigint,
	error			text
) WITH (fillfactor = 70);
-- one run of a channel at a time
CREATE UNIQUE INDEX msg_runs_open ON @extschema@.msg_runs (channel) WHERE finished_at IS NULL;
COMMENT ON TABLE @extschema@.msg_runs IS 'the runs of channels with a pace, also those that found nothing to send';
COMMENT ON COLUMN @extschema@.msg_runs.id IS 'in the order of their starts';
COMMENT ON COLUMN @extschema@.msg_runs.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_runs.due_at IS 'when it was to start';
COMMENT ON COLUMN @extschema@.msg_runs.started_at IS 'when it did';
COMMENT ON COLUMN @extschema@.msg_runs.finished_at IS 'when all that it took had ended; null while it is under way, also after a restart, for it is gone on with';
COMMENT ON COLUMN @extschema@.msg_runs.claimed IS 'messages that it took';
COMMENT ON COLUMN @extschema@.msg_runs.succeeded IS 'those that Kafka or the webhook took';
COMMENT ON COLUMN @extschema@.msg_runs.failed IS 'those whose attempt failed';
COMMENT ON COLUMN @extschema@.msg_runs.first_id IS 'lowest id of its messages';
COMMENT ON COLUMN @extschema@.msg_runs.last_id IS 'highest id of its messages';
COMMENT ON COLUMN @extschema@.msg_runs.error IS 'why the latest of those that failed did';

CREATE TABLE @extschema@.msg_retention (
	channel			text NOT NULL,
	status			@extschema@.msg_status NOT NULL,
	keep			interval NOT NULL,
	archive			boolean NOT NULL DEFAULT false,
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_by		text NOT NULL DEFAULT CURRENT_USER,
	PRIMARY KEY (channel, status),
	CONSTRAINT msg_retention_status CHECK (status IN ('sent', 'received', 'delivered', 'dead', 'cancelled', 'expired')),
	CONSTRAINT msg_retention_keep CHECK (keep >= '0')
);
COMMENT ON TABLE @extschema@.msg_retention IS 'how long finished messages are kept; what no row speaks of is kept for ever; set it with msg_retention_set()';
COMMENT ON COLUMN @extschema@.msg_retention.channel IS 'the channel, or * for all that have no row of their own for this status';
COMMENT ON COLUMN @extschema@.msg_retention.status IS 'the status in which they ended';
COMMENT ON COLUMN @extschema@.msg_retention.keep IS 'how long after their end';
COMMENT ON COLUMN @extschema@.msg_retention.archive IS 'whether they go to msg_archive then; else they are deleted';
COMMENT ON COLUMN @extschema@.msg_retention.updated_at IS 'when it was last set';
COMMENT ON COLUMN @extschema@.msg_retention.updated_by IS 'who set it';

-- Its partitions have their keys each: a dump does not restore a key of a partition whose parent is the extension's and has one.
CREATE TABLE @extschema@.msg_archive (LIKE @extschema@.messages) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE @extschema@.msg_archive IS 'messages that retention took out of messages, in partitions by the month of their end (UTC); see msg_archive_drop()';
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT attname, pg_catalog.col_description(attrelid, attnum) AS words FROM pg_catalog.pg_attribute
		WHERE attrelid = '@extschema@.messages'::regclass AND attnum > 0 AND pg_catalog.col_description(attrelid, attnum) IS NOT NULL
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN @extschema@.msg_archive.%I IS %L', c.attname, c.words);
	END LOOP;
END $$;

CREATE TABLE @extschema@.msg_statistics (
	at				timestamptz NOT NULL,
	channel			text NOT NULL,
	status			@extschema@.msg_status NOT NULL,
	count			bigint NOT NULL,
	oldest_age		interval
);
CREATE INDEX msg_statistics_at ON @extschema@.msg_statistics (at);
COMMENT ON TABLE @extschema@.msg_statistics IS 'the backlog at past times, as msg_statistics_take() found it; kept for 30 days';
COMMENT ON COLUMN @extschema@.msg_statistics.at IS 'when';
COMMENT ON COLUMN @extschema@.msg_statistics.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_statistics.status IS 'the status in which they waited';
COMMENT ON COLUMN @extschema@.msg_statistics.count IS 'how many';
COMMENT ON COLUMN @extschema@.msg_statistics.oldest_age IS 'for how long the oldest one';

CREATE TABLE @extschema@.msg_offsets (
	topic			text NOT NULL,
	"partition"		integer NOT NULL,
	next_offset		bigint NOT NULL,
	record_time		timestamptz,
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	PRIMARY KEY (topic, "partition")
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.msg_offsets IS 'how far the receiver has read, kept in the transaction that marks the messages; Kafka''s own committed offsets follow it';
COMMENT ON COLUMN @extschema@.msg_offsets.topic IS 'Kafka topic';
COMMENT ON COLUMN @extschema@.msg_offsets."partition" IS 'partition of it';
COMMENT ON COLUMN @extschema@.msg_offsets.next_offset IS 'the next offset to read';
COMMENT ON COLUMN @extschema@.msg_offsets.record_time IS 'the timestamp of the record before it: where Kafka has another record there, or none, the topic is another one of that name and is read from its beginning';
COMMENT ON COLUMN @extschema@.msg_offsets.updated_at IS 'when it moved last';

-- Not dumped, for it tells the original from a copy: its one row is made here, and so is new in a restored
-- database, whose restored messages are older than it.
CREATE TABLE @extschema@.msg_installation (
	uuid			uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	system_identifier bigint NOT NULL,
	database_oid	oid NOT NULL,
	identity		text NOT NULL,
	installed_at	timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	restored_at		timestamptz,
	adopted_at		timestamptz
);
CREATE UNIQUE INDEX msg_installation_one ON @extschema@.msg_installation ((true));
COMMENT ON TABLE @extschema@.msg_installation IS 'who we are: one row. Where it does not fit this server and database, they are a copy, and nothing is sent until msg_adopt()';
COMMENT ON COLUMN @extschema@.msg_installation.uuid IS 'part of every message''s name outside (header ce_id), renewed by msg_adopt()';
COMMENT ON COLUMN @extschema@.msg_installation.system_identifier IS 'of the server where this was installed or adopted';
COMMENT ON COLUMN @extschema@.msg_installation.database_oid IS 'of the database where this was installed or adopted';
COMMENT ON COLUMN @extschema@.msg_installation.identity IS 'msgsys.identity as it was then';
COMMENT ON COLUMN @extschema@.msg_installation.installed_at IS 'a message older than this was restored from elsewhere';
COMMENT ON COLUMN @extschema@.msg_installation.restored_at IS 'when a worker met a restored message that another installation may have sent, and stopped';
COMMENT ON COLUMN @extschema@.msg_installation.adopted_at IS 'when msg_adopt() was called';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.messages', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.messages_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_channels', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_webhooks', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_webhook_secrets', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_webhook_secrets_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_attempts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_attempts_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_pauses', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_pause_log', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_pause_log_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_paces', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_runs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_runs_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_retention', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_statistics', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_offsets', '');

INSERT INTO @extschema@.msg_installation (system_identifier, database_oid, identity)
SELECT s.system_identifier, d.oid, coalesce(pg_catalog.current_setting('msgsys.identity', true), '')
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database();

-- ---------------------------------------------------------------- triggers

CREATE FUNCTION @extschema@.msg_message_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_message_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_message_trigger() IS 'checks a message that is inserted or changed, and wakes the workers when that commits';

-- The names make them the last triggers of their kind: what they note is what is stored.
CREATE TRIGGER zz_msgsys_insert BEFORE INSERT ON @extschema@.messages
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_message_trigger();
-- AFTER, because a BEFORE UPDATE trigger would make each worker's UPDATE lock each row again, even where it
-- does not fire (workers run as replicas).
CREATE TRIGGER zz_msgsys_update AFTER UPDATE ON @extschema@.messages FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.channel IS DISTINCT FROM NEW.channel OR OLD.due_at IS DISTINCT FROM NEW.due_at)
	EXECUTE FUNCTION @extschema@.msg_message_trigger();

CREATE FUNCTION @extschema@.msg_config_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_config_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_config_trigger() IS 'makes the workers read the configuration again when the change commits';

CREATE FUNCTION @extschema@.msg_schedule_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_schedule_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_schedule_trigger() IS 'makes the scheduler look at its jobs again when the change commits';
CREATE TRIGGER zz_msgsys_schedule AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_retention
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_schedule_trigger();

CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_channels
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_webhooks
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_webhook_secrets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_pauses
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_paces
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_installation
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();

-- ---------------------------------------------------------------- channels

CREATE VIEW @extschema@.msg_webhook_settings AS
SELECT channel, url, method, headers, body_template, cloudevents, timeout, connect_timeout, success_codes, retry_codes, retry_schedule,
	retry_after_max, concurrency, rate, ordered, http2, redirects, ca_file, proxy, keep_attempts, breaker_share, breaker_calls,
	breaker_window, breaker_pause, breaker_pause_max, disabled_at
FROM @extschema@.msg_webhooks
UNION ALL
SELECT 'default', pg_catalog.current_setting('msgsys.webhook_url', true), 'POST', NULL, NULL, false, '15 s', '5 s', NULL, NULL,
	'{5 s,5 min,30 min,2 h,5 h,10 h,14 h,20 h,24 h}', '1 day', 64, NULL, false, false, 0, NULL, NULL, false, 0.5, 20, '30 s', '5 s', '5 min', NULL
WHERE pg_catalog.current_setting('msgsys.webhook_url', true) <> ''
	AND NOT EXISTS (SELECT FROM @extschema@.msg_webhooks WHERE channel = 'default');
COMMENT ON VIEW @extschema@.msg_webhook_settings IS 'the webhooks in force: msg_webhooks, and that of the channel "default" from msgsys.webhook_url while it has no row';

CREATE VIEW @extschema@.msg_channel_settings AS
SELECT channel, topic, ack, max_attempts, retry_base, retry_max, resend_after, former_topics,
	EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = c.channel) AS has_webhook
FROM @extschema@.msg_channels c
UNION ALL
SELECT 'default', NULLIF(pg_catalog.current_setting('msgsys.kafka_topic', true), ''),
	COALESCE(pg_catalog.current_setting('msgsys.kafka_ack', true), 'readback'), 10, '5 s', '1 h', NULL, NULL,
	EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = 'default')
WHERE NOT EXISTS (SELECT FROM @extschema@.msg_channels WHERE channel = 'default');
COMMENT ON VIEW @extschema@.msg_channel_settings IS 'the settings in force: msg_channels, and the channel "default" from the configuration while it has no row';

/*
 * msg_channel_set(channel, ...): make a channel or change it.
 * Parameters that are left out (NULL) stay as they are, in a new channel they take the table's defaults; the
 * empty string takes topic away, and the interval 0 takes resend_after away.
 * Returns the channel's row. Errors: 22023 for a value out of its range; a NOTICE where it leads nowhere.
 */
CREATE FUNCTION @extschema@.msg_channel_set(
	channel text, topic text DEFAULT NULL, ack text DEFAULT NULL, max_attempts integer DEFAULT NULL,
	retry_base interval DEFAULT NULL, retry_max interval DEFAULT NULL, resend_after interval DEFAULT NULL)
RETURNS @extschema@.msg_channels LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	old @extschema@.msg_channels;
	new @extschema@.msg_channels;
BEGIN
	IF msg_channel_set.channel IS NULL OR msg_channel_set.channel !~ '^[A-Za-z0-9._:-]{1,63}$' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid channel name "%s"', msg_channel_set.channel),
			HINT = 'A name has 1 to 63 letters, digits, dots, underscores, colons and hyphens.';
	END IF;
	IF msg_channel_set.topic <> '' AND (msg_channel_set.topic !~ '^[A-Za-z0-9._-]{1,249}$' OR msg_channel_set.topic IN ('.', '..')) THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid topic name "%s"', msg_channel_set.topic),
			HINT = 'Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens.';
	END IF;
	IF msg_channel_set.ack NOT IN ('none', 'readback', 'topic') THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid ack "%s"', msg_channel_set.ack),
			HINT = 'One of none, readback and topic.';
	END IF;
	INSERT INTO @extschema@.msg_channels (channel) VALUES (msg_channel_set.channel)
	ON CONFLICT (channel) DO NOTHING;
	SELECT * INTO STRICT old FROM @extschema@.msg_channels c WHERE c.channel = msg_channel_set.channel FOR UPDATE;
	new := old;
	new.topic := CASE WHEN msg_channel_set.topic IS NULL THEN old.topic ELSE NULLIF(msg_channel_set.topic, '') END;
	new.ack := COALESCE(msg_channel_set.ack, old.ack);
	new.max_attempts := COALESCE(msg_channel_set.max_attempts, old.max_attempts);
	new.retry_base := COALESCE(msg_channel_set.retry_base, old.retry_base);
	new.retry_max := COALESCE(msg_channel_set.retry_max, GREATEST(old.retry_max, new.retry_base));
	new.resend_after := CASE WHEN msg_channel_set.resend_after IS NULL THEN old.resend_after
		ELSE NULLIF(msg_channel_set.resend_after, '0') END;
	IF old.topic IS DISTINCT FROM new.topic THEN
		-- what is on its way in the old topic is still to be acknowledged
		new.former_topics := NULLIF(array_remove(old.former_topics || old.topic, new.topic), '{}');
		new.former_topics := NULLIF(array_remove(new.former_topics, NULL), '{}');
	END IF;
	UPDATE @extschema@.msg_channels c SET topic = new.topic, ack = new.ack, max_attempts = new.max_attempts,
		retry_base = new.retry_base, retry_max = new.retry_max, resend_after = new.resend_after,
		former_topics = new.former_topics, updated_at = now(), updated_by = CURRENT_USER
	WHERE c.channel = new.channel RETURNING c.* INTO new;
	IF new.ack = 'none' AND old.ack <> 'none' THEN
		-- nothing will acknowledge what is on its way any more
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = new.channel AND m.status = 'sent' AND m.finished_at IS NULL;
	END IF;
	IF EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = new.channel) THEN
		IF new.topic IS NOT NULL AND new.ack = 'none' THEN
			RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has a webhook, which waits for an acknowledgement', new.channel),
				HINT = 'Use the ack readback or topic.';
		END IF;
	ELSIF new.topic IS NULL THEN
		RAISE NOTICE 'channel "%" has neither topic nor webhook: its messages stay idle', new.channel;
	END IF;
	RETURN new;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_set IS 'makes a channel or changes it; what is left out stays as it is, an empty topic or a resend_after of 0 is taken away';

/*
 * msg_channel_drop(channel, discard): drop a channel.
 * Refuses (55006) while messages wait in it or are to be acknowledged; with discard, those that wait are cancelled
 * and nobody waits for acknowledgements any more. Finished messages stay. Blocks writers of messages for the moment.
 * Errors: 42704 no such channel.
 */
CREATE FUNCTION @extschema@.msg_channel_drop(channel text, discard boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	live bigint;
BEGIN
	-- no message may slip into the channel between the check and the commit
	LOCK TABLE @extschema@.messages IN SHARE ROW EXCLUSIVE MODE;
	IF discard THEN
		UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'idle';
		UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status IN ('scheduled', 'retry');
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'sent' AND m.finished_at IS NULL;
		UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
		WHERE m.channel = msg_channel_drop.channel AND m.status = 'received' AND m.finished_at IS NULL;
	ELSE
		SELECT count INTO live FROM @extschema@.msg_live(msg_channel_drop.channel) AS count;
		IF live > 0 THEN
			RAISE object_in_use USING MESSAGE = format('channel "%s" still has messages under way: %s', msg_channel_drop.channel, live),
				HINT = 'Wait for them, or use discard => true to cancel those that wait.';
		END IF;
	END IF;
	IF EXISTS (SELECT FROM @extschema@.msg_mailings g WHERE g.channel = msg_channel_drop.channel AND g.status IN ('planned', 'running', 'expanded')) THEN
		RAISE object_in_use USING MESSAGE = format('channel "%s" has mailings that are not over', msg_channel_drop.channel), HINT = 'Cancel them with msg_mailing_cancel().';
	END IF;
	DELETE FROM @extschema@.msg_pauses p WHERE p.channel = msg_channel_drop.channel;
	PERFORM @extschema@.msg_pace_drop(msg_channel_drop.channel);
	DELETE FROM @extschema@.msg_webhook_secrets p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_webhooks p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_subscriptions p WHERE p.channel = msg_channel_drop.channel;
	DELETE FROM @extschema@.msg_channels c WHERE c.channel = msg_channel_drop.channel;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_channel_drop.channel);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_drop IS 'drops a channel that has no message under way; with discard => true cancels those that wait';

/* msg_live(channel): how many messages of a channel wait or are to be acknowledged; reads only the indexes of live rows. */
CREATE FUNCTION @extschema@.msg_live(channel text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'idle' AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status IN ('scheduled', 'retry') AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = msg_live.channel)
	+ (SELECT count(*) FROM @extschema@.messages m WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel = msg_live.channel)
$$;
COMMENT ON FUNCTION @extschema@.msg_live IS 'number of messages of a channel that wait or are to be acknowledged';

-- ---------------------------------------------------------------- webhooks

/*
 * msg_webhook_check(url, headers): refuse what cannot be a webhook's: 22023 for a URL that is none, or not http(s), or whose host is a
 * literal address that may not be called, and for headers with control characters or of a reserved name.
 */
CREATE FUNCTION @extschema@.msg_webhook_check(url text, headers jsonb DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME', 'msg_webhook_check' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_webhook_check IS 'refuses a URL or headers that a webhook cannot have';

/* msg_webhook_secret(): a new signing secret, "whsec_" and 32 random bytes in base64. */
CREATE FUNCTION @extschema@.msg_webhook_secret() RETURNS text
AS 'MODULE_PATHNAME', 'msg_webhook_secret' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_webhook_secret IS 'makes a new signing secret of Standard Webhooks, and stores it nowhere';

/*
 * msg_webhook_set(channel, url, ...): give a channel a webhook, or change it. The parameters are the columns of msg_webhooks; what is
 * left out (NULL) stays as it is, or takes the table's default. Taken away by: an empty array (success_codes, retry_codes, retry_schedule),
 * an empty object (headers, body_template), an empty string (ca_file, proxy), 0 (rate). Secrets are never shown again: secret_headers
 * (an object of strings; null takes one away), bearer (a token), basic (user:password), client_cert and client_key (PEM); empty strings take them
 * away. Signing secrets are made by msg_channel_rotate_secret().
 * Returns the row. Errors: 42704 no such channel, 22023 or 23514 for a value that cannot be.
 */
CREATE FUNCTION @extschema@.msg_webhook_set(
	channel text, url text DEFAULT NULL, method text DEFAULT NULL, headers jsonb DEFAULT NULL, body_template jsonb DEFAULT NULL,
	cloudevents boolean DEFAULT NULL, timeout interval DEFAULT NULL, connect_timeout interval DEFAULT NULL,
	success_codes integer[] DEFAULT NULL, retry_codes integer[] DEFAULT NULL, retry_schedule interval[] DEFAULT NULL,
	retry_after_max interval DEFAULT NULL, concurrency integer DEFAULT NULL, rate double precision DEFAULT NULL, ordered boolean DEFAULT NULL,
	http2 boolean DEFAULT NULL, redirects integer DEFAULT NULL, ca_file text DEFAULT NULL, proxy text DEFAULT NULL,
	keep_attempts boolean DEFAULT NULL, breaker_share double precision DEFAULT NULL, breaker_calls integer DEFAULT NULL,
	breaker_window interval DEFAULT NULL, breaker_pause interval DEFAULT NULL, breaker_pause_max interval DEFAULT NULL,
	secret_headers jsonb DEFAULT NULL, bearer text DEFAULT NULL, basic text DEFAULT NULL, client_cert text DEFAULT NULL, client_key text DEFAULT NULL)
RETURNS @extschema@.msg_webhooks LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	c @extschema@.msg_channel_settings;
	w @extschema@.msg_webhooks;
	secret record;
BEGIN
	SELECT * INTO c FROM @extschema@.msg_channel_settings s WHERE s.channel = msg_webhook_set.channel;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_webhook_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF c.topic IS NOT NULL AND c.ack = 'none' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has a topic and the ack "none", so that nothing would reach its webhook', c.channel),
			HINT = 'Use the ack readback or topic, or take the topic away.';
	END IF;
	PERFORM @extschema@.msg_webhook_check(msg_webhook_set.url, msg_webhook_set.headers),
		@extschema@.msg_webhook_check(NULL, jsonb_strip_nulls(msg_webhook_set.secret_headers));
	SELECT * INTO w FROM @extschema@.msg_webhooks o WHERE o.channel = msg_webhook_set.channel FOR UPDATE;
	IF NOT FOUND THEN
		IF msg_webhook_set.url IS NULL THEN
			RAISE invalid_parameter_value USING MESSAGE = format('channel "%s" has no webhook yet: its url is missing', msg_webhook_set.channel);
		END IF;
		INSERT INTO @extschema@.msg_webhooks (channel, url) VALUES (msg_webhook_set.channel, msg_webhook_set.url) RETURNING * INTO w;
	END IF;
	UPDATE @extschema@.msg_webhooks o SET
		url = coalesce(msg_webhook_set.url, w.url), method = coalesce(msg_webhook_set.method, w.method),
		headers = nullif(coalesce(msg_webhook_set.headers, w.headers), '{}'),
		body_template = nullif(coalesce(msg_webhook_set.body_template, w.body_template), '{}'),
		cloudevents = coalesce(msg_webhook_set.cloudevents, w.cloudevents),
		timeout = coalesce(msg_webhook_set.timeout, w.timeout), connect_timeout = coalesce(msg_webhook_set.connect_timeout, w.connect_timeout),
		success_codes = nullif(coalesce(msg_webhook_set.success_codes, w.success_codes), '{}'),
		retry_codes = nullif(coalesce(msg_webhook_set.retry_codes, w.retry_codes), '{}'),
		retry_schedule = nullif(coalesce(msg_webhook_set.retry_schedule, w.retry_schedule), '{}'),
		retry_after_max = coalesce(msg_webhook_set.retry_after_max, w.retry_after_max),
		concurrency = coalesce(msg_webhook_set.concurrency, w.concurrency), rate = nullif(coalesce(msg_webhook_set.rate, w.rate), 0),
		ordered = coalesce(msg_webhook_set.ordered, w.ordered), http2 = coalesce(msg_webhook_set.http2, w.http2),
		redirects = coalesce(msg_webhook_set.redirects, w.redirects), ca_file = nullif(coalesce(msg_webhook_set.ca_file, w.ca_file), ''),
		proxy = nullif(coalesce(msg_webhook_set.proxy, w.proxy), ''), keep_attempts = coalesce(msg_webhook_set.keep_attempts, w.keep_attempts),
		breaker_share = coalesce(msg_webhook_set.breaker_share, w.breaker_share), breaker_calls = coalesce(msg_webhook_set.breaker_calls, w.breaker_calls),
		breaker_window = coalesce(msg_webhook_set.breaker_window, w.breaker_window),
		breaker_pause = coalesce(msg_webhook_set.breaker_pause, w.breaker_pause),
		breaker_pause_max = coalesce(msg_webhook_set.breaker_pause_max, greatest(w.breaker_pause_max, msg_webhook_set.breaker_pause)),
		updated_at = now(), updated_by = CURRENT_USER
	WHERE o.channel = w.channel RETURNING o.* INTO w;
	FOR secret IN
		SELECT 'header' AS kind, h.key AS name, h.value FROM jsonb_each_text(msg_webhook_set.secret_headers) h
		UNION ALL SELECT v.kind, '', v.value FROM (VALUES ('bearer', msg_webhook_set.bearer), ('basic', msg_webhook_set.basic),
			('client_cert', msg_webhook_set.client_cert), ('client_key', msg_webhook_set.client_key)) v(kind, value) WHERE v.value IS NOT NULL
	LOOP
		IF secret.kind IN ('bearer', 'basic') AND secret.value ~ '[[:cntrl:]]' THEN
			RAISE invalid_parameter_value USING MESSAGE = format('%s has a control character', secret.kind);
		END IF;
		PERFORM @extschema@.msg_webhook_keep_secret(w.channel, secret.kind, secret.name, secret.value);
	END LOOP;
	RETURN w;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_set IS 'gives a channel a webhook or changes it; the parameters are the columns of msg_webhooks, and what is left out stays as it is. An empty array, object or text, and a rate of 0, take a setting away. secret_headers (an object of strings), bearer (a token), basic (user:password), client_cert and client_key (PEM) are never shown again';

/* msg_webhook_keep_secret(channel, kind, name, value): store or (null, empty) forget a secret; with its owner's rights, for nobody else reads them. */
CREATE FUNCTION @extschema@.msg_webhook_keep_secret(channel text, kind text, name text, value text)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_webhook_secrets s
	WHERE s.channel = msg_webhook_keep_secret.channel AND s.kind = msg_webhook_keep_secret.kind AND lower(s.name) = lower(msg_webhook_keep_secret.name);
	IF msg_webhook_keep_secret.value <> '' THEN
		INSERT INTO @extschema@.msg_webhook_secrets (channel, kind, name, value)
		VALUES (msg_webhook_keep_secret.channel, msg_webhook_keep_secret.kind, msg_webhook_keep_secret.name, msg_webhook_keep_secret.value);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_keep_secret IS 'stores a secret of a webhook; called by msg_webhook_set()';

/*
 * msg_channel_rotate_secret(channel, overlap, secret): a new signing secret for a channel's webhook, made here or given; those
 * before it go on to sign too until overlap is over, so that receivers can change in their own time.
 * Returns the new secret, which is not shown again. Errors: 42704 no webhook, 22023 not a secret ("whsec_" and base64 of 24 to 64 bytes),
 * 54000 more than 4 would be in use.
 */
CREATE FUNCTION @extschema@.msg_channel_rotate_secret(channel text, overlap interval DEFAULT '24 h', secret text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made text := coalesce(msg_channel_rotate_secret.secret, @extschema@.msg_webhook_secret());
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_webhook_settings w WHERE w.channel = msg_channel_rotate_secret.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" has no webhook', msg_channel_rotate_secret.channel),
			HINT = 'Give it one with msg_webhook_set().';
	END IF;
	IF NOT @extschema@.msg_webhook_secret_valid(made) THEN
		RAISE invalid_parameter_value USING MESSAGE = 'not a signing secret', HINT = 'It is "whsec_" and the base64 of 24 to 64 bytes.';
	END IF;
	DELETE FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing'
		AND (s.expires_at <= clock_timestamp() OR msg_channel_rotate_secret.overlap <= '0');
	UPDATE @extschema@.msg_webhook_secrets s SET expires_at = clock_timestamp() + msg_channel_rotate_secret.overlap
	WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing' AND s.expires_at IS NULL;
	INSERT INTO @extschema@.msg_webhook_secrets (channel, kind, value) VALUES (msg_channel_rotate_secret.channel, 'signing', made);
	IF (SELECT count(*) > 4 FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_channel_rotate_secret.channel AND s.kind = 'signing') THEN
		RAISE program_limit_exceeded USING MESSAGE = format('channel "%s" has 4 signing secrets in use already', msg_channel_rotate_secret.channel),
			HINT = 'Wait until one expires, or use overlap => ''0'' to end them.';
	END IF;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_channel_rotate_secret IS 'gives a channel''s webhook a new signing secret and returns it; the old ones sign too until the overlap is over';

/* msg_webhook_secret_valid(secret): whether it is "whsec_" and the base64 of 24 to 64 bytes. */
CREATE FUNCTION @extschema@.msg_webhook_secret_valid(secret text) RETURNS boolean
AS 'MODULE_PATHNAME', 'msg_webhook_secret_valid' LANGUAGE C IMMUTABLE STRICT;
COMMENT ON FUNCTION @extschema@.msg_webhook_secret_valid IS 'whether a text is a signing secret';

/*
 * msg_webhook_enable(channel, enabled, reason): end or begin a webhook's being disabled; while it is, its messages wait.
 * Returns whether that changed anything. Errors: 42704 no webhook.
 */
CREATE FUNCTION @extschema@.msg_webhook_enable(channel text, enabled boolean DEFAULT true, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_webhooks w WHERE w.channel = msg_webhook_enable.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" has no webhook', msg_webhook_enable.channel);
	END IF;
	UPDATE @extschema@.msg_webhooks w SET disabled_at = CASE WHEN NOT enabled THEN now() END,
		disabled_reason = CASE WHEN NOT enabled THEN coalesce(reason, 'by ' || CURRENT_USER) END
	WHERE w.channel = msg_webhook_enable.channel AND (w.disabled_at IS NULL) IS DISTINCT FROM enabled;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_enable IS 'enables a webhook that an answer 410 or somebody has disabled, or disables it';

/*
 * msg_webhook_drop(channel): take a channel's webhook away. What was received and waited for it is finished as received.
 * Returns whether there was one.
 */
CREATE FUNCTION @extschema@.msg_webhook_drop(channel text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_one boolean;
BEGIN
	DELETE FROM @extschema@.msg_webhooks w WHERE w.channel = msg_webhook_drop.channel;
	found_one := FOUND;
	DELETE FROM @extschema@.msg_webhook_secrets s WHERE s.channel = msg_webhook_drop.channel;
	DELETE FROM @extschema@.msg_breakers b WHERE b.channel = msg_webhook_drop.channel;
	UPDATE @extschema@.messages m SET finished_at = @extschema@.msg_now()
	WHERE m.channel = msg_webhook_drop.channel AND m.status = 'received' AND m.finished_at IS NULL;
	RETURN found_one;
END $$;
COMMENT ON FUNCTION @extschema@.msg_webhook_drop IS 'takes a channel''s webhook away; what waited for it is finished as received';

/*
 * msg_test(channel, payload, message_key, event_type): one request to a channel's webhook, now, from this session, whether or not the channel is paused
 * or its webhook disabled; nothing is stored. Returns the exact request (secret headers as ***) and the answer; class is as in
 * msg_attempts. Runs with its owner's rights, for the secrets. Errors: 42704 no webhook, 22023 the request cannot be made.
 */
CREATE FUNCTION @extschema@.msg_test(
	channel text, payload jsonb DEFAULT '{"test": true}', message_key text DEFAULT 'test', event_type text DEFAULT 'msgsys.test',
	OUT method text, OUT url text, OUT request_headers jsonb, OUT request_body text, OUT class text, OUT code integer, OUT address text,
	OUT milliseconds integer, OUT response_body text, OUT error text)
RETURNS record AS 'MODULE_PATHNAME', 'msg_test' LANGUAGE C VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_test IS 'makes one request to a channel''s webhook and shows it and its answer';

-- ---------------------------------------------------------------- creating

/*
 * msg_create(payload, ...): create one message in the caller's transaction; it is sent when that commits.
 * payload: the value; channel; message_key: ordering and partition key; event_type; headers: object of strings;
 * dedup_key: where the channel has a message with it, that one's id is returned and nothing is created;
 * deliver_at: not before; expires_at: not after; content_type (application/json).
 * Returns the id; NULL where a trigger of the user's did not want the row. Errors: 42704 unknown channel, 23514 or 22023 for a value that cannot be, 54000 too large.
 */
CREATE FUNCTION @extschema@.msg_create(
	payload jsonb, channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL,
	headers jsonb DEFAULT NULL, dedup_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
	expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME', 'msg_create' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_create IS 'creates a message in the caller''s transaction and returns its id; a dedup_key that the channel has already returns the first id';

/*
 * msg_create_raw(body, ...): as msg_create, with bytes for a value (content_type application/octet-stream).
 */
CREATE FUNCTION @extschema@.msg_create_raw(
	body bytea, channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL,
	headers jsonb DEFAULT NULL, dedup_key text DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
	expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL)
RETURNS bigint AS 'MODULE_PATHNAME', 'msg_create_raw' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_create_raw IS 'creates a message whose value is bytes, and returns its id';

/*
 * msg_create_many(messages): create a message for each object of a JSON array, all or none.
 * The objects' names are msg_create's parameters. Returns the ids in the array's order.
 * Errors: 22023 not an array of objects, or a name that msg_create does not have; and msg_create's.
 */
CREATE FUNCTION @extschema@.msg_create_many(messages jsonb)
RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wrong text;
BEGIN
	IF messages IS NULL OR jsonb_typeof(messages) <> 'array' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages must be a JSON array of objects';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(messages) e WHERE jsonb_typeof(e) <> 'object') THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages must be a JSON array of objects';
	END IF;
	SELECT k INTO wrong FROM jsonb_array_elements(messages) e, jsonb_object_keys(e) k
	WHERE k NOT IN ('payload', 'channel', 'message_key', 'event_type', 'headers', 'dedup_key', 'deliver_at', 'expires_at', 'content_type')
	LIMIT 1;
	IF FOUND THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown name "%s" in messages', wrong),
			HINT = 'The names are those of msg_create''s parameters.';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(messages) e WHERE e ->> 'dedup_key' IS NOT NULL) THEN
		RETURN QUERY SELECT @extschema@.msg_create(r.payload, coalesce(r.channel, 'default'), r.message_key, r.event_type, r.headers,
			r.dedup_key, r.deliver_at, r.expires_at, r.content_type)
		FROM jsonb_array_elements(messages) WITH ORDINALITY a(e, n), jsonb_to_record(e) r(payload jsonb, channel text, message_key text,
			event_type text, headers jsonb, dedup_key text, deliver_at timestamptz, expires_at timestamptz, content_type text)
		ORDER BY n;
	ELSE
		RETURN QUERY INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, headers, payload, content_type, due_at, expires_at)
		SELECT coalesce(r.channel, 'default'), r.message_key, r.event_type, r.headers, r.payload, r.content_type, r.deliver_at, r.expires_at
		FROM jsonb_array_elements(messages) WITH ORDINALITY a(e, n), jsonb_to_record(e) r(payload jsonb, channel text, message_key text,
			event_type text, headers jsonb, deliver_at timestamptz, expires_at timestamptz, content_type text)
		ORDER BY n
		RETURNING m.id;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_create_many IS 'creates a message for each object of a JSON array (its names are msg_create''s parameters) and returns the ids in order';

/*
 * msg_create_from_query(query, channel, message_key, event_type, search_path): create a message for each row of a SELECT, in one statement. A row with a
 * column payload is read by the names of msg_create's parameters (its channel, message_key and event_type win over those given here), any other row
 * is the payload itself, as an object. Rows whose dedup_key the channel has already make nothing.
 * The query runs with the caller's rights and search_path; msg_grant() gives the function to operators alone, because a query may become any role
 * that the session's user may become (not over HTTP). Returns how many messages were made. Errors: 22023 a column that msg_create
 * does not have, 42601 or 42P11 not one SELECT (42601 for one that changes data too), and msg_create's.
 */
CREATE FUNCTION @extschema@.msg_create_from_query(query text, channel text DEFAULT 'default', message_key text DEFAULT NULL,
	event_type text DEFAULT NULL, search_path text DEFAULT pg_catalog.current_setting('search_path'))
RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	one refcursor;
	made bigint;
BEGIN
	PERFORM set_config('search_path', msg_create_from_query.search_path, true);
	-- a cursor takes one statement, and parentheses take only what reads: together, one SELECT
	OPEN one NO SCROLL FOR EXECUTE msg_create_from_query.query;
	CLOSE one;
	EXECUTE pg_catalog.format(
		'WITH rows AS MATERIALIZED (SELECT pg_catalog.to_jsonb(q) AS r FROM (%s
		) q),
		checked AS (SELECT r, CASE WHEN r ? ''payload'' THEN (SELECT pg_catalog.min(k) FROM pg_catalog.jsonb_object_keys(r) k
			WHERE k NOT IN (''payload'', ''channel'', ''message_key'', ''event_type'', ''headers'', ''dedup_key'', ''deliver_at'', ''expires_at'', ''content_type'')) END AS wrong FROM rows),
		made AS (INSERT INTO @extschema@.messages (channel, message_key, event_type, headers, payload, content_type, due_at, expires_at, dedup_key)
			SELECT COALESCE(v.channel, $1), COALESCE(v.message_key, $2), COALESCE(v.event_type, $3), v.headers,
				CASE WHEN c.r ? ''payload'' THEN c.r -> ''payload'' ELSE c.r END, v.content_type, v.deliver_at, v.expires_at, v.dedup_key
			FROM checked c LEFT JOIN LATERAL pg_catalog.jsonb_to_record(CASE WHEN c.r ? ''payload'' THEN @extschema@.msg_known_names(c.r, c.wrong) END)
				v(channel text, message_key text, event_type text, headers jsonb, content_type text, deliver_at timestamptz, expires_at timestamptz, dedup_key text) ON true
			ON CONFLICT (channel, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING RETURNING 1)
		SELECT pg_catalog.count(*) FROM made', msg_create_from_query.query)
	INTO made USING msg_create_from_query.channel, msg_create_from_query.message_key, msg_create_from_query.event_type;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_create_from_query IS 'creates a message for each row of a SELECT and returns how many';

/* msg_known_names(row, wrong): the row, where it has no wrong name. Errors: 22023. */
CREATE FUNCTION @extschema@.msg_known_names("row" jsonb, wrong text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF wrong IS NOT NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown column "%s" beside payload', wrong),
			HINT = 'The names are those of msg_create''s parameters; without a column payload, the whole row is the payload.';
	END IF;
	RETURN "row";
END $$;
COMMENT ON FUNCTION @extschema@.msg_known_names IS 'refuses names that msg_create does not have; called by msg_create_from_query()';

-- ---------------------------------------------------------------- reading

/* msg_get(id): the message, or NULL. */
CREATE FUNCTION @extschema@.msg_get(id bigint) RETURNS @extschema@.messages
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT m FROM @extschema@.messages m WHERE m.id = msg_get.id
$$;
COMMENT ON FUNCTION @extschema@.msg_get IS 'the message with this id, or null';

/* msg_list(status, channel, limit, offset): messages, the newest first; NULL for status or channel means any. */
CREATE FUNCTION @extschema@.msg_list(
	status @extschema@.msg_status DEFAULT NULL, channel text DEFAULT NULL, "limit" integer DEFAULT 100, "offset" bigint DEFAULT 0)
RETURNS SETOF @extschema@.messages LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF msg_list."limit" < 0 OR msg_list."offset" < 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'limit and offset must not be negative';
	END IF;
	-- separate statements, so that each can use its index
	IF msg_list.status IN ('idle') THEN
		RETURN QUERY SELECT m.* FROM @extschema@.messages m
		WHERE m.status = 'idle' AND (msg_list.channel IS NULL OR m.channel = msg_list.channel)
		ORDER BY m.id DESC LIMIT msg_list."limit" OFFSET msg_list."offset";
	ELSE
		RETURN QUERY SELECT m.* FROM @extschema@.messages m
		WHERE (msg_list.status IS NULL OR m.status = msg_list.status) AND (msg_list.channel IS NULL OR m.channel = msg_list.channel)
		ORDER BY m.id DESC LIMIT msg_list."limit" OFFSET msg_list."offset";
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_list IS 'messages, the newest first, of one status and channel or of any (null)';

CREATE VIEW @extschema@.msg_backlog AS
SELECT channel, status, pg_catalog.count(*) AS count, pg_catalog.now() - pg_catalog.min(since) AS oldest_age
FROM (
	SELECT channel, status, created_at AS since FROM @extschema@.messages WHERE status = 'idle'
	UNION ALL
	SELECT channel, status, created_at FROM @extschema@.messages WHERE status IN ('scheduled', 'retry')
	UNION ALL
	SELECT channel, status, sent_at FROM @extschema@.messages WHERE status = 'sent' AND finished_at IS NULL
	UNION ALL
	SELECT channel, status, received_at FROM @extschema@.messages WHERE status = 'received' AND finished_at IS NULL
) live
GROUP BY channel, status;
COMMENT ON VIEW @extschema@.msg_backlog IS 'what waits now, by channel and status; its cost is that of the live rows, however long the history';

/*
 * msg_wait(id, status, timeout): wait until a message has reached a status, or is past it, or ended otherwise.
 * timeout: at most 10 minutes. Returns the status that it has then; at the timeout, the one it has now.
 * Runs with its owner's rights, so that who may wait need not read the table.
 * Errors: 55000 above READ COMMITTED or for a message of this transaction (neither could ever see it change),
 * P0002 no such message, 22023 timeout out of range.
 */
CREATE FUNCTION @extschema@.msg_wait(id bigint, status @extschema@.msg_status DEFAULT 'sent', timeout interval DEFAULT '30 s')
RETURNS @extschema@.msg_status AS 'MODULE_PATHNAME', 'msg_wait' LANGUAGE C VOLATILE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_wait IS 'waits, without polling, until a message has reached a status or ended, and returns the status it has; for 10 minutes at most, and only for messages of other, committed transactions';

-- ---------------------------------------------------------------- the cache

/* msg_cache_get(id): what Redis has of a message, or NULL. */
CREATE FUNCTION @extschema@.msg_cache_get(id bigint) RETURNS text
AS 'MODULE_PATHNAME', 'msg_cache_get' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_cache_get IS 'what Redis has of a message; null where it has nothing or does not answer';

/* msg_cache_put(ids, entries): write entries into Redis. Errors: 08006, 55000. */
CREATE FUNCTION @extschema@.msg_cache_put(ids bigint[], entries text[]) RETURNS void
AS 'MODULE_PATHNAME', 'msg_cache_put' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION @extschema@.msg_cache_put IS 'writes entries into Redis; called by msg_cache_fill()';

/* msg_cache_entry(message): what the cache holds of a delivered message. */
CREATE FUNCTION @extschema@.msg_cache_entry(message @extschema@.messages) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_object('message', message.payload, 'messageId', message.response_id,
	'sentAt', to_char(message.delivered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'code', message.response_code)
$$;
COMMENT ON FUNCTION @extschema@.msg_cache_entry IS 'what the cache holds of a delivered message';

/*
 * msg_cached(id): {"message", "messageId", "sentAt", "code"} of a delivered message, from Redis, or else from the table;
 * NULL where there is no such delivered message.
 */
CREATE FUNCTION @extschema@.msg_cached(id bigint) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_there text := @extschema@.msg_cache_get(msg_cached.id);
BEGIN
	IF found_there IS NOT NULL THEN
		RETURN found_there::jsonb;
	END IF;
	RETURN (SELECT @extschema@.msg_cache_entry(m) FROM @extschema@.messages m WHERE m.id = msg_cached.id AND m.status = 'delivered');
END $$;
COMMENT ON FUNCTION @extschema@.msg_cached IS 'a delivered message as the cache holds it, from Redis or else from the table';

/*
 * msg_cache_fill(since): write all that was delivered since then into Redis again, 1,000 at a time.
 * Returns how many. Errors: 55000 no Redis is set, 08006 it does not take them.
 */
CREATE FUNCTION @extschema@.msg_cache_fill(since timestamptz DEFAULT pg_catalog.now() - interval '1 day') RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	last bigint := 0;
	done bigint := 0;
	ids bigint[];
	entries text[];
BEGIN
	LOOP
		SELECT array_agg(b.id ORDER BY b.id), array_agg(b.entry ORDER BY b.id) INTO ids, entries
		FROM (SELECT m.id, @extschema@.msg_cache_entry(m)::text AS entry FROM @extschema@.messages m
			WHERE m.id > last AND m.status = 'delivered' AND m.delivered_at >= since ORDER BY m.id LIMIT 1000) b;
		EXIT WHEN ids IS NULL;
		PERFORM @extschema@.msg_cache_put(ids, entries);
		last := ids[array_length(ids, 1)];
		done := done + array_length(ids, 1);
	END LOOP;
	RETURN done;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cache_fill IS 'writes what was delivered since a time into Redis again, and returns how many';

-- ---------------------------------------------------------------- acting

/*
 * msg_cancel(id): cancel a message that has not been sent.
 * Returns whether it was cancelled: false where it is sent, finished or not there.
 */
CREATE FUNCTION @extschema@.msg_cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.messages m SET status = 'cancelled', finished_at = @extschema@.msg_now()
	WHERE m.id = msg_cancel.id AND m.status IN ('scheduled', 'idle', 'retry');
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cancel IS 'cancels a message that is not yet sent; false where it is too late';

/*
 * msg_reschedule(id, deliver_at): send a message that waits at another time; NULL or a past time: now. One that is to be tried
 * again keeps its attempts.
 * Returns whether it was waiting: false where it is sent, finished or not there. Errors: 22023 it would expire before that.
 */
CREATE FUNCTION @extschema@.msg_reschedule(id bigint, deliver_at timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	at timestamptz := greatest(msg_reschedule.deliver_at, @extschema@.msg_now());
	expires timestamptz;
BEGIN
	UPDATE @extschema@.messages m SET due_at = at,
		status = CASE WHEN m.status = 'retry' THEN 'retry' ELSE 'scheduled' END::@extschema@.msg_status
	WHERE m.id = msg_reschedule.id AND m.status IN ('scheduled', 'idle', 'retry') RETURNING m.expires_at INTO expires;
	IF FOUND AND expires <= at THEN
		RAISE invalid_parameter_value USING MESSAGE = 'message expires before it can be sent', DETAIL = format('expires_at is %s.', expires);
	END IF;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_reschedule IS 'has a message that waits be sent at another time (null: now); false where it is too late';

/*
 * msg_retry(id): send a dead message again, with all its attempts before it.
 * Returns whether there was such a dead message.
 */
CREATE FUNCTION @extschema@.msg_retry(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.messages m SET status = 'retry', due_at = @extschema@.msg_now(), attempts = 0, finished_at = NULL, dlq_pending = NULL
	WHERE m.id = msg_retry.id AND m.status = 'dead';
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retry IS 'sends a dead message again; false where there is no dead message with this id';

/*
 * msg_cancel_many(ids), msg_retry_many(ids): msg_cancel() and msg_retry() for each of these, in the order of their ids. They return for how many it was done.
 */
CREATE FUNCTION @extschema@.msg_cancel_many(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT count(*) FILTER (WHERE @extschema@.msg_cancel(o.id)) FROM (SELECT DISTINCT u.id FROM unnest(ids) u(id) ORDER BY 1) o
$$;
COMMENT ON FUNCTION @extschema@.msg_cancel_many IS 'cancels those of these messages that are not yet sent, and returns how many';

CREATE FUNCTION @extschema@.msg_retry_many(ids bigint[]) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT count(*) FILTER (WHERE @extschema@.msg_retry(o.id)) FROM (SELECT DISTINCT u.id FROM unnest(ids) u(id) ORDER BY 1) o
$$;
COMMENT ON FUNCTION @extschema@.msg_retry_many IS 'sends those of these messages that are dead again, and returns how many';

/*
 * msg_redrive(channel, from, to, error, limit): send dead messages again, with all their attempts before them: of a channel (NULL: of any),
 * that died within a time (NULL: ever), whose last_error is LIKE a pattern (NULL: any), at most so many, the oldest first.
 * Returns how many.
 */
CREATE FUNCTION @extschema@.msg_redrive(channel text DEFAULT NULL, "from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	error text DEFAULT NULL, "limit" bigint DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
WITH chosen AS (
	SELECT m.id FROM @extschema@.messages m
	WHERE m.status = 'dead' AND (msg_redrive.channel IS NULL OR m.channel = msg_redrive.channel)
		AND (msg_redrive."from" IS NULL OR m.finished_at >= msg_redrive."from") AND (msg_redrive."to" IS NULL OR m.finished_at < msg_redrive."to")
		AND (msg_redrive.error IS NULL OR m.last_error LIKE msg_redrive.error)
	ORDER BY m.id LIMIT msg_redrive."limit" FOR NO KEY UPDATE SKIP LOCKED),
driven AS (
	UPDATE @extschema@.messages m SET status = 'retry', due_at = @extschema@.msg_now(), attempts = 0, finished_at = NULL, dlq_pending = NULL
	FROM chosen WHERE m.id = chosen.id RETURNING 1)
SELECT count(*) FROM driven
$$;
COMMENT ON FUNCTION @extschema@.msg_redrive IS 'sends dead messages again, chosen by channel, time of death and error, and returns how many';

/*
 * msg_ack(id, outcome, error, attempt): a consumer without Kafka acknowledges by SQL.
 * outcome: received, delivered or failed; error: why it failed; attempt: the one that is meant (failed
 * counts only for the current one). Returns whether the message was waiting for that.
 * Runs with its owner's rights, so that a consumer needs no rights on the table. Errors: 22023 unknown outcome.
 */
CREATE FUNCTION @extschema@.msg_ack(id bigint, outcome text DEFAULT 'received', error text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean AS 'MODULE_PATHNAME', 'msg_ack' LANGUAGE C VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION @extschema@.msg_ack IS 'acknowledges a message: received, delivered or failed; false where it was not waiting for that';

/* msg_retry_delay(base, max, attempts): a random share of base * 2^(attempts - 1), at most max ("full jitter"). */
CREATE FUNCTION @extschema@.msg_retry_delay(base interval, max interval, attempts integer) RETURNS interval
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT random() * least(max, base * power(2::float8, greatest(0, least(attempts - 1, 30))))
$$;
COMMENT ON FUNCTION @extschema@.msg_retry_delay IS 'wait before the next attempt: exponential backoff with full jitter';

-- ---------------------------------------------------------------- retention

/*
 * msg_retention_set(channel, status, keep, archive): keep messages of a channel (NULL: of all that have no rule of their own for the
 * status) that ended in a status for so long after their end; then they are deleted, or, with archive, moved to msg_archive. The
 * scheduler sees to it. Returns the row. Errors: 42704 unknown channel, 22023 a status that is no end, or a negative time.
 */
CREATE FUNCTION @extschema@.msg_retention_set(channel text, status @extschema@.msg_status, keep interval, archive boolean DEFAULT false)
RETURNS @extschema@.msg_retention LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	rule @extschema@.msg_retention;
BEGIN
	IF msg_retention_set.channel IS NOT NULL AND
		NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_retention_set.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_retention_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF msg_retention_set.status IN ('scheduled', 'idle', 'retry') OR msg_retention_set.status IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('messages that are %s are not finished', msg_retention_set.status);
	END IF;
	IF msg_retention_set.keep IS NULL OR msg_retention_set.keep < '0' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'messages are kept for a time that is not negative';
	END IF;
	INSERT INTO @extschema@.msg_retention (channel, status, keep, archive)
	VALUES (coalesce(msg_retention_set.channel, '*'), msg_retention_set.status, msg_retention_set.keep, coalesce(msg_retention_set.archive, false))
	ON CONFLICT (channel, status) DO UPDATE SET keep = excluded.keep, archive = excluded.archive, updated_at = now(), updated_by = CURRENT_USER
	RETURNING * INTO rule;
	RETURN rule;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retention_set IS 'says how long messages are kept that ended in a status, and whether they are archived then';

/* msg_retention_drop(channel, status): keep them for ever (NULL: the rule for all channels). Returns whether there was a rule. */
CREATE FUNCTION @extschema@.msg_retention_drop(channel text, status @extschema@.msg_status) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_retention r
	WHERE r.channel = coalesce(msg_retention_drop.channel, '*') AND r.status = msg_retention_drop.status;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_retention_drop IS 'takes a rule of retention away; false where there was none';

/* msg_archive_partition(at): make the partition of msg_archive for the month of a time, if it is not there. With its owner's rights. */
CREATE FUNCTION @extschema@.msg_archive_partition(at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	month constant timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
	name constant text := 'msg_archive_' || to_char(month, 'YYYY_MM');
BEGIN
	IF to_regclass(format('@extschema@.%I', name)) IS NULL THEN
		EXECUTE format('CREATE TABLE @extschema@.%I PARTITION OF @extschema@.msg_archive (PRIMARY KEY (id)) FOR VALUES FROM (%L) TO (%L)',
			name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_archive_partition IS 'makes a month''s partition of msg_archive; called by msg_purge_step()';

/*
 * msg_archive_drop(before): drop the partitions of msg_archive for months that were over at a time, whole, with the owner's rights.
 * Returns how many. Errors: 22023 a time that is not past.
 */
CREATE FUNCTION @extschema@.msg_archive_drop(before timestamptz) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partition record;
	dropped integer := 0;
BEGIN
	IF before IS NULL OR before > @extschema@.msg_now() THEN
		RAISE invalid_parameter_value USING MESSAGE = 'only months that are over can be dropped';
	END IF;
	FOR partition IN SELECT c.oid::regclass AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = '@extschema@.msg_archive'::regclass
			AND (to_timestamp(right(c.relname, 7), 'YYYY_MM')::timestamp + interval '1 month') AT TIME ZONE 'UTC' <= before
	LOOP
		EXECUTE format('DROP TABLE %s', partition.name);
		dropped := dropped + 1;
	END LOOP;
	RETURN dropped;
END $$;
COMMENT ON FUNCTION @extschema@.msg_archive_drop IS 'drops the partitions of msg_archive for months that are over';

/*
 * msg_purge_step(above, rows): look at so many messages, those with the next ids above one, and delete or archive what the rules of
 * retention do not keep any more, with its attempts. Rows that somebody holds are left for the next time.
 * last is the highest id looked at (NULL: there are none), purged how many went, more whether those with higher ids may be old
 * enough, shortest the shortest time of all rules (NULL: there are no rules).
 */
CREATE FUNCTION @extschema@.msg_purge_step(above bigint, rows integer, OUT last bigint, OUT purged integer, OUT more boolean, OUT shortest interval)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	now_is constant timestamptz := @extschema@.msg_now();
	old bigint[];
	archived bigint[];
	month timestamptz;
BEGIN
	purged := 0;
	more := false;
	SELECT min(r.keep) INTO shortest FROM @extschema@.msg_retention r;
	IF shortest IS NULL THEN
		RETURN;
	END IF;
	-- a look of bounded cost, whatever it finds
	SELECT max(c.id), count(*) = msg_purge_step.rows AND NOT bool_and(c.created_at > now_is - shortest),
		array_agg(c.id ORDER BY c.id) FILTER (WHERE c.over), array_agg(c.id) FILTER (WHERE c.over AND c.archive)
	INTO last, more, old, archived
	FROM (SELECT m.id, m.created_at, r.archive, m.finished_at < now_is - r.keep AND m.dlq_pending IS NULL AS over
		FROM (SELECT n.id, n.created_at, n.channel, n.status, n.finished_at, n.dlq_pending FROM @extschema@.messages n
			WHERE n.id > msg_purge_step.above ORDER BY n.id LIMIT msg_purge_step.rows) m
		LEFT JOIN LATERAL (SELECT s.keep, s.archive FROM @extschema@.msg_retention s
			WHERE s.status = m.status AND s.channel IN (m.channel, '*') ORDER BY s.channel = '*' LIMIT 1) r ON true) c;
	more := coalesce(more, false);
	IF old IS NULL THEN
		RETURN;
	END IF;
	FOR month IN SELECT DISTINCT date_trunc('month', m.finished_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
		FROM @extschema@.messages m WHERE m.id = ANY (archived) AND m.finished_at IS NOT NULL
	LOOP
		PERFORM @extschema@.msg_archive_partition(month);
	END LOOP;
	WITH free AS (
		SELECT m.id FROM @extschema@.messages m WHERE m.id = ANY (old) ORDER BY m.id FOR UPDATE SKIP LOCKED),
	gone AS (
		DELETE FROM @extschema@.messages m USING free WHERE m.id = free.id AND m.finished_at IS NOT NULL RETURNING m.*),
	kept AS (
		INSERT INTO @extschema@.msg_archive SELECT g.* FROM gone g WHERE g.id = ANY (archived)),
	attempts AS (
		DELETE FROM @extschema@.msg_attempts a USING gone g WHERE a.message_id = g.id AND g.id <> ALL (coalesce(archived, '{}')))
	SELECT count(*) INTO purged FROM gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_purge_step IS 'applies the rules of retention to the next messages above an id';

/*
 * msg_purge("limit"): apply the rules of retention now, from the oldest message on, in this transaction, until about so many are gone.
 * Returns how many. The scheduler does this by itself, in small transactions.
 */
CREATE FUNCTION @extschema@.msg_purge("limit" bigint DEFAULT 100000) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	step record;
	above bigint := 0;
	gone bigint := 0;
BEGIN
	LOOP
		SELECT * INTO step FROM @extschema@.msg_purge_step(above, 10000);
		gone := gone + step.purged;
		EXIT WHEN NOT step.more OR gone >= "limit";
		above := step.last;
	END LOOP;
	RETURN gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_purge IS 'deletes or archives now what the rules of retention do not keep any more, and returns how many';

-- ---------------------------------------------------------------- jobs by pg_cron

/* msg_statistics_take(): write the backlog into msg_statistics, and forget there what is older than 30 days. Returns the number of rows. */
CREATE FUNCTION @extschema@.msg_statistics_take() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DELETE FROM @extschema@.msg_statistics WHERE at < @extschema@.msg_now() - interval '30 days';
WITH taken AS (INSERT INTO @extschema@.msg_statistics (at, channel, status, count, oldest_age)
	SELECT @extschema@.msg_now(), b.channel, b.status, b.count, b.oldest_age FROM @extschema@.msg_backlog b RETURNING 1)
SELECT count(*) FROM taken
$$;
COMMENT ON FUNCTION @extschema@.msg_statistics_take IS 'writes the backlog into msg_statistics';

/* msg_cron_schema(): the quoted schema of pg_cron. Errors: 0A000 it is not in this database. */
CREATE FUNCTION @extschema@.msg_cron_schema() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
		RAISE feature_not_supported USING MESSAGE = 'pg_cron is not installed in this database',
			HINT = 'Add pg_cron to shared_preload_libraries, set cron.database_name to this database, and CREATE EXTENSION pg_cron. Retention needs no pg_cron: its rules are applied by the scheduler.';
	END IF;
	RETURN 'cron';
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron_schema IS 'the schema of pg_cron, or an error that says how to install it';

/*
 * msg_cron(name, schedule, payload, query, job, channel, message_key, event_type): have pg_cron do something by a schedule in its syntax ('0 9 * * 1'): create a
 * message with a payload, or one for each row of a query (see msg_create_from_query()), or do a job that is ready: 'retention' (msg_purge()) or
 * 'statistics' (msg_statistics_take()). Exactly one of payload, query and job. It runs as the caller; a job of this name is replaced.
 * Returns pg_cron's number of it. Errors: 0A000 without pg_cron, 22023.
 */
CREATE FUNCTION @extschema@.msg_cron(name text, schedule text, payload jsonb DEFAULT NULL, query text DEFAULT NULL, job text DEFAULT NULL,
	channel text DEFAULT 'default', message_key text DEFAULT NULL, event_type text DEFAULT NULL, search_path text DEFAULT pg_catalog.current_setting('search_path'))
RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	command text;
	id bigint;
BEGIN
	IF name IS NULL OR name = '' OR schedule IS NULL OR num_nonnulls(payload, query, job) <> 1 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'a cron job needs a name, a schedule, and one of payload, query and job';
	END IF;
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_cron.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_cron.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	command := CASE
		WHEN payload IS NOT NULL THEN format('SELECT @extschema@.msg_create(%L::jsonb, channel => %L, message_key => %L, event_type => %L)',
			payload, channel, message_key, event_type)
		WHEN query IS NOT NULL THEN format('SELECT @extschema@.msg_create_from_query(%L, channel => %L, message_key => %L, event_type => %L, search_path => %L)',
			query, channel, message_key, event_type, search_path)
		WHEN job = 'retention' THEN 'SELECT @extschema@.msg_purge()'
		WHEN job = 'statistics' THEN 'SELECT @extschema@.msg_statistics_take()'
	END;
	IF command IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('there is no job "%s"', job), HINT = 'One of retention and statistics.';
	END IF;
	EXECUTE format('SELECT %s.schedule($1, $2, $3)', @extschema@.msg_cron_schema()) INTO id USING 'msgsys:' || name, schedule, command;
	RETURN id;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron IS 'has pg_cron do something by a schedule, and returns its number of the job: create a message (payload) or one for each row of a SELECT (query), or do a job of msgsys (job: retention or statistics). A job of this name is replaced';

/* msg_cron_drop(name): end a job that msg_cron() made. Returns whether there was one of the caller's. Errors: 0A000 without pg_cron. */
CREATE FUNCTION @extschema@.msg_cron_drop(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	there boolean;
	gone boolean;
BEGIN
	EXECUTE format('SELECT EXISTS (SELECT FROM %s.job WHERE jobname = $1 AND username = CURRENT_USER)', @extschema@.msg_cron_schema())
	INTO there USING 'msgsys:' || name;
	IF NOT there THEN
		RETURN false;
	END IF;
	EXECUTE format('SELECT %s.unschedule($1)', @extschema@.msg_cron_schema()) INTO gone USING 'msgsys:' || name;
	RETURN gone;
END $$;
COMMENT ON FUNCTION @extschema@.msg_cron_drop IS 'ends a job that msg_cron() made; false where there is none';

/* msg_crons(): the jobs that msg_cron() made and the caller may see, with the time and outcome of the latest run. Errors: 0A000 without pg_cron. */
CREATE FUNCTION @extschema@.msg_crons(OUT name text, OUT schedule text, OUT command text, OUT active boolean, OUT last_run timestamptz, OUT last_status text,
	OUT last_message text)
RETURNS SETOF record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT substr(j.jobname, 8)::text, j.schedule, j.command, j.active, d.start_time, d.status, d.return_message
		FROM %1$s.job j LEFT JOIN LATERAL (SELECT r.start_time, r.status, r.return_message FROM %1$s.job_run_details r
			WHERE r.jobid = j.jobid ORDER BY r.runid DESC LIMIT 1) d ON true
		WHERE starts_with(j.jobname::text, ''msgsys:'') ORDER BY 1', @extschema@.msg_cron_schema());
END $$;
COMMENT ON FUNCTION @extschema@.msg_crons IS 'the jobs that msg_cron() made, with their latest runs';

-- ---------------------------------------------------------------- pausing

/*
 * msg_pause(channel, reason): stop sending and receiving for one channel, or for all (NULL), until msg_resume().
 * Kept over restarts; workers obey within 100 ms of the commit. Returns false where it was paused already.
 * Errors: 42704 unknown channel.
 */
CREATE FUNCTION @extschema@.msg_pause(channel text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_pause.channel) AND msg_pause.channel IS NOT NULL THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_pause.channel);
	END IF;
	INSERT INTO @extschema@.msg_pauses (channel, reason) VALUES (coalesce(msg_pause.channel, '*'), msg_pause.reason)
	ON CONFLICT (channel) DO NOTHING;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	INSERT INTO @extschema@.msg_pause_log (channel, action, reason) VALUES (coalesce(msg_pause.channel, '*'), 'pause', msg_pause.reason);
	RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pause IS 'pauses a channel, or all of them (null), until msg_resume(); false where it was paused already';

/*
 * msg_resume(channel, reason): end a pause: of one channel, or the pause of all (NULL), which leaves those of single channels.
 * Returns false where there was none. Each pause and its end are in msg_pause_log.
 */
CREATE FUNCTION @extschema@.msg_resume(channel text DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_pauses p WHERE p.channel = coalesce(msg_resume.channel, '*');
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	INSERT INTO @extschema@.msg_pause_log (channel, action, reason) VALUES (coalesce(msg_resume.channel, '*'), 'resume', msg_resume.reason);
	RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.msg_resume IS 'ends the pause of a channel, or the pause of all (null)';

/* msg_running(channel): whether neither the channel nor everything is paused; NULL asks for everything alone. */
CREATE FUNCTION @extschema@.msg_running(channel text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT NOT EXISTS (SELECT FROM @extschema@.msg_pauses p WHERE p.channel IN ('*', msg_running.channel))
$$;
COMMENT ON FUNCTION @extschema@.msg_running IS 'whether a channel (null: everything) is not paused';

/*
 * msg_pace_set(channel, batch, every, at_once): have a channel send at most batch messages every so often: as runs, each a row of
 * msg_runs. at_once: whether the first run comes now or after one interval; NULL: now, but a pace that is there keeps its
 * phase. A run that falls in a time when the server is down or the channel paused is made up for once, then the phase goes on.
 * Where the channel has a topic the pace is that of sending to it, else that of its webhook; messages that are tried
 * again count. Returns the row. Errors: 42704 unknown channel, 22023 batch below 1 or interval below 10 ms.
 */
CREATE FUNCTION @extschema@.msg_pace_set(channel text, batch integer, every interval, at_once boolean DEFAULT NULL)
RETURNS @extschema@.msg_paces LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	pace @extschema@.msg_paces;
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_pace_set.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_pace_set.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF msg_pace_set.batch IS NULL OR msg_pace_set.batch < 1 OR msg_pace_set.every IS NULL OR msg_pace_set.every NOT BETWEEN '10 ms' AND '1 year' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'a pace is at least 1 message, every 10 ms to 1 year';
	END IF;
	INSERT INTO @extschema@.msg_paces AS p (channel, batch, every, next_at)
	VALUES (msg_pace_set.channel, msg_pace_set.batch, msg_pace_set.every,
		@extschema@.msg_now() + CASE WHEN msg_pace_set.at_once IS FALSE THEN msg_pace_set.every ELSE '0' END)
	ON CONFLICT (channel) DO UPDATE SET batch = excluded.batch, every = excluded.every, updated_at = now(), updated_by = CURRENT_USER,
		next_at = CASE WHEN msg_pace_set.at_once IS NULL THEN least(p.next_at, @extschema@.msg_now() + excluded.every) ELSE excluded.next_at END
	RETURNING p.* INTO pace;
	RETURN pace;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pace_set IS 'has a channel send at most batch messages every so often; at_once: the first time now, or after one interval (null: now, but a pace that is there keeps its phase)';

/* msg_pace_drop(channel): let a channel send at full speed. Returns whether it had a pace. */
CREATE FUNCTION @extschema@.msg_pace_drop(channel text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.msg_runs r SET finished_at = @extschema@.msg_now(), claimed = r.succeeded + r.failed
	WHERE r.channel = msg_pace_drop.channel AND r.finished_at IS NULL;
	DELETE FROM @extschema@.msg_paces p WHERE p.channel = msg_pace_drop.channel;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_pace_drop IS 'takes a channel''s pace away; false where it had none';

/*
 * msg_adopt(): make a copy (a restored dump, a cloned or upgraded server) an installation of its own, with a new uuid,
 * and let it send. Returns the uuid.
 */
CREATE FUNCTION @extschema@.msg_adopt() RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
UPDATE @extschema@.msg_installation SET uuid = gen_random_uuid(), system_identifier = s.system_identifier, database_oid = d.oid,
	identity = coalesce(current_setting('msgsys.identity', true), ''), restored_at = NULL, adopted_at = clock_timestamp()
FROM pg_control_system() s, pg_database d WHERE d.datname = current_database()
RETURNING uuid
$$;
COMMENT ON FUNCTION @extschema@.msg_adopt IS 'makes a copy an installation of its own that may send';

-- ---------------------------------------------------------------- fan-out

CREATE TABLE @extschema@.msg_subscriptions (
	id				bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	event_type		text NOT NULL,
	channel			text NOT NULL,
	filter			jsonpath,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	created_by		text NOT NULL DEFAULT CURRENT_USER
);
-- By the words before the first wildcard, so that a publication looks at those subscriptions alone that begin like its event type.
CREATE INDEX msg_subscriptions_prefix ON @extschema@.msg_subscriptions
	(pg_catalog.rtrim(pg_catalog.split_part(pg_catalog.translate(event_type, '#', '*'), '*', 1), '.'));
CREATE UNIQUE INDEX msg_subscriptions_once ON @extschema@.msg_subscriptions (channel, event_type, COALESCE(filter::text, ''));
COMMENT ON TABLE @extschema@.msg_subscriptions IS 'which channels get a message of which events; see msg_subscribe() and msg_publish()';
COMMENT ON COLUMN @extschema@.msg_subscriptions.id IS 'a number, for msg_unsubscribe()';
COMMENT ON COLUMN @extschema@.msg_subscriptions.event_type IS 'words between dots; the word * stands for any one word, # for any number of words, none included';
COMMENT ON COLUMN @extschema@.msg_subscriptions.channel IS 'the channel that gets the message';
COMMENT ON COLUMN @extschema@.msg_subscriptions.filter IS 'what the payload must have: the first item that this path selects is neither false nor null; an error of the path counts as no item; null: anything';
COMMENT ON COLUMN @extschema@.msg_subscriptions.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_subscriptions.created_by IS 'who made it';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_subscriptions', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_subscriptions_id_seq', '');

/*
 * msg_event_matches(pattern, event_type): whether an event type matches a subscription's pattern. Words stand between dots; the word "*" of
 * the pattern stands for any one word, "#" for any number of words, none included (AMQP 0-9-1's topic exchange).
 */
CREATE FUNCTION @extschema@.msg_event_matches(pattern text, event_type text) RETURNS boolean
AS 'MODULE_PATHNAME', 'msg_event_matches' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_event_matches IS 'whether an event type matches a pattern, in which * stands for one word and # for any number of them';

/*
 * msg_subscribe(event_type, channel, filter): let a channel have a message of each event that matches.
 * event_type: a pattern, as in msg_event_matches(); filter: a jsonpath, see the column. Returns the subscription's id; the same one again where it
 * is there already. Errors: 42704 no such channel, 22023 a pattern or filter that cannot be.
 */
CREATE FUNCTION @extschema@.msg_subscribe(event_type text, channel text DEFAULT 'default', filter jsonpath DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made bigint;
BEGIN
	IF msg_subscribe.event_type IS NULL OR octet_length(msg_subscribe.event_type) > 255 OR msg_subscribe.event_type ~ '[[:cntrl:]]'
		OR msg_subscribe.event_type !~ '^([^.*#]+|\*|#)(\.([^.*#]+|\*|#))*$' THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid pattern of event types "%s"', msg_subscribe.event_type),
			HINT = 'Words between dots, at most 255 bytes; the word * stands for one word, # for any number of words.';
	END IF;
	-- a variable has no value here, and would make each publication fail; what is quoted is none
	IF regexp_replace(msg_subscribe.filter::text, '"(\\.|[^"\\])*"', '""', 'g') ~ '\$"' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'filter has a variable', HINT = 'Write its value instead.';
	END IF;
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_subscribe.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_subscribe.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	INSERT INTO @extschema@.msg_subscriptions (event_type, channel, filter)
	VALUES (msg_subscribe.event_type, msg_subscribe.channel, msg_subscribe.filter)
	ON CONFLICT DO NOTHING RETURNING id INTO made;
	IF made IS NULL THEN
		SELECT s.id INTO made FROM @extschema@.msg_subscriptions s
		WHERE s.channel = msg_subscribe.channel AND s.event_type = msg_subscribe.event_type
			AND coalesce(s.filter::text, '') = coalesce(msg_subscribe.filter::text, '');
	END IF;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_subscribe IS 'lets a channel have a message of each event whose type matches a pattern and whose payload a filter, and returns the subscription''s id';

/* msg_unsubscribe(id): end a subscription; what was published before stays. Returns whether there was one. */
CREATE FUNCTION @extschema@.msg_unsubscribe(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_subscriptions s WHERE s.id = msg_unsubscribe.id;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_unsubscribe IS 'ends a subscription; false where there is none with this id';

/*
 * msg_publish(event_type, payload, ...): one message for each subscription that matches, in one statement of the caller's transaction.
 * Two subscriptions of one channel that match make two messages. They share the header event-id: a new uuid, or the one that is given; with a given one,
 * publishing the same event again creates nothing (as long as its messages are kept).
 * The other parameters are those of msg_create(). Returns the event's id and the ids of the messages, in the order of the subscriptions.
 * Errors: 22023 no event type, or a longer one than 255 bytes; and msg_create()'s.
 */
CREATE FUNCTION @extschema@.msg_publish(
	event_type text, payload jsonb, message_key text DEFAULT NULL, headers jsonb DEFAULT NULL, event_id uuid DEFAULT NULL,
	deliver_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, content_type text DEFAULT NULL,
	OUT event uuid, OUT messages bigint[])
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	words text[] := string_to_array(msg_publish.event_type, '.');
	prefixes text[];
BEGIN
	IF coalesce(msg_publish.event_type, '') = '' OR octet_length(msg_publish.event_type) > 255 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'event_type must have 1 to 255 bytes';
	END IF;
	IF msg_publish.payload IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = 'an event needs a payload';
	END IF;
	IF msg_publish.headers IS NOT NULL AND jsonb_typeof(msg_publish.headers) <> 'object' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'headers must be an object of strings';
	END IF;
	event := coalesce(msg_publish.event_id, gen_random_uuid());
	prefixes := ARRAY(SELECT array_to_string(words[1:n], '.') FROM generate_series(0, array_length(words, 1)) n);
	WITH made AS (
		INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, content_type, headers, payload, dedup_key, due_at, expires_at)
		SELECT s.channel, msg_publish.message_key, msg_publish.event_type, msg_publish.content_type,
			coalesce(msg_publish.headers, '{}') || jsonb_build_object('event-id', msg_publish.event), msg_publish.payload,
			msg_publish.event_id || ':' || s.id, msg_publish.deliver_at, msg_publish.expires_at
		FROM @extschema@.msg_subscriptions s
		WHERE rtrim(split_part(translate(s.event_type, '#', '*'), '*', 1), '.') = ANY (prefixes)
			AND @extschema@.msg_event_matches(s.event_type, msg_publish.event_type)
			AND CASE WHEN s.filter IS NULL THEN true
				ELSE coalesce(jsonb_path_query_first_tz(msg_publish.payload, s.filter, '{}', true) NOT IN ('false', 'null'), false) END
		ORDER BY s.id
		ON CONFLICT DO NOTHING
		RETURNING m.id)
	SELECT coalesce(array_agg(made.id ORDER BY made.id), '{}') INTO messages FROM made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_publish IS 'creates a message for each subscription that matches an event, and returns the event''s id and theirs';

-- ---------------------------------------------------------------- mailings

CREATE TABLE @extschema@.msg_clients (
	id				bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	phone			text NOT NULL,
	operator_code	text,
	tag				text,
	time_zone		text NOT NULL DEFAULT 'UTC',
	attributes		jsonb NOT NULL DEFAULT '{}',
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	CONSTRAINT msg_clients_id CHECK (id > 0),
	CONSTRAINT msg_clients_phone UNIQUE (phone),
	CONSTRAINT msg_clients_attributes CHECK (pg_catalog.jsonb_typeof(attributes) = 'object')
);
COMMENT ON TABLE @extschema@.msg_clients IS 'the people that mailings go to; rows may be inserted and changed directly too, and are brought into one form';
COMMENT ON COLUMN @extschema@.msg_clients.id IS 'given by the database, or one''s own';
COMMENT ON COLUMN @extschema@.msg_clients.phone IS 'E.164: a plus sign and 7 to 15 digits; 7XXXXXXXXXX is taken for +7XXXXXXXXXX';
COMMENT ON COLUMN @extschema@.msg_clients.operator_code IS 'of the mobile operator; where none is given, the three digits after +7';
COMMENT ON COLUMN @extschema@.msg_clients.tag IS 'a word to choose clients by';
COMMENT ON COLUMN @extschema@.msg_clients.time_zone IS 'name of the IANA database, or offset from UTC such as +03:00 (east is positive)';
COMMENT ON COLUMN @extschema@.msg_clients.attributes IS 'an object with what else the texts of mailings may name, such as {"name": "Anna"}';
COMMENT ON COLUMN @extschema@.msg_clients.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_clients.updated_at IS 'when msg_client_set() changed it last';

CREATE TABLE @extschema@.msg_mailings (
	id				bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	text			text NOT NULL,
	channel			text NOT NULL,
	operator_codes	text[],
	tags			text[],
	starts_at		timestamptz NOT NULL,
	ends_at			timestamptz NOT NULL,
	window_from		time,
	window_to		time,
	status			text NOT NULL DEFAULT 'planned',
	act_at			timestamptz,
	next_client		bigint NOT NULL DEFAULT 0,
	again			boolean NOT NULL DEFAULT false,
	left_out		bigint NOT NULL DEFAULT 0,
	created_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	updated_by		text NOT NULL DEFAULT CURRENT_USER,
	CONSTRAINT msg_mailings_time CHECK (starts_at < ends_at AND pg_catalog.isfinite(starts_at) AND ends_at < '10000-01-01 00:00:00+00'),
	CONSTRAINT msg_mailings_window CHECK ((window_from IS NULL) = (window_to IS NULL) AND window_from <> window_to),
	CONSTRAINT msg_mailings_status CHECK (status IN ('planned', 'running', 'expanded', 'finished', 'cancelling', 'cancelled', 'deleting'))
);
CREATE INDEX msg_mailings_act ON @extschema@.msg_mailings (act_at) WHERE act_at IS NOT NULL;
COMMENT ON TABLE @extschema@.msg_mailings IS 'texts to many clients, each within a span of the day by the client''s own clock; see msg_mailing_create()';
COMMENT ON COLUMN @extschema@.msg_mailings.id IS 'a number';
COMMENT ON COLUMN @extschema@.msg_mailings.text IS 'the text, where {phone}, {operator_code}, {tag}, {time_zone}, {client_id}, {mailing_id} and names of a client''s attributes stand for these';
COMMENT ON COLUMN @extschema@.msg_mailings.channel IS 'the channel that its messages go through';
COMMENT ON COLUMN @extschema@.msg_mailings.operator_codes IS 'clients of these operators alone; null: of any';
COMMENT ON COLUMN @extschema@.msg_mailings.tags IS 'clients with one of these tags alone; null: with any, or none';
COMMENT ON COLUMN @extschema@.msg_mailings.starts_at IS 'nothing is sent before; clients are chosen then';
COMMENT ON COLUMN @extschema@.msg_mailings.ends_at IS 'nothing is sent after';
COMMENT ON COLUMN @extschema@.msg_mailings.window_from IS 'time of the day, by the client''s clock, from which on messages are sent; null: all day';
COMMENT ON COLUMN @extschema@.msg_mailings.window_to IS 'time of the day before which they are sent; earlier than window_from: of the next day';
COMMENT ON COLUMN @extschema@.msg_mailings.status IS 'planned, running (its clients become messages), expanded (they have), finished (past its end), cancelling, cancelled, or deleting';
COMMENT ON COLUMN @extschema@.msg_mailings.act_at IS 'when the scheduler has something to do for it; null: never again';
COMMENT ON COLUMN @extschema@.msg_mailings.next_client IS 'clients up to this id are done with';
COMMENT ON COLUMN @extschema@.msg_mailings.again IS 'whether its clients are gone through once more, because it was changed after its start';
COMMENT ON COLUMN @extschema@.msg_mailings.left_out IS 'clients that were chosen and got no message: their window does not open again before the end, or the text would be too long';
COMMENT ON COLUMN @extschema@.msg_mailings.created_at IS 'when it was made';
COMMENT ON COLUMN @extschema@.msg_mailings.updated_at IS 'when a user changed it last';
COMMENT ON COLUMN @extschema@.msg_mailings.updated_by IS 'who did';

-- A table beside messages, where each change of a row would have to be entered in each index that is not its status's own.
CREATE TABLE @extschema@.msg_mailing_links (
	mailing_id		bigint NOT NULL,
	client_id		bigint NOT NULL,
	message_id		bigint NOT NULL,
	PRIMARY KEY (mailing_id, client_id)
);
-- Rows come in the order of messages, so that this costs next to nothing; workers come from the message, which names mailing and client itself.
CREATE INDEX msg_mailing_links_message ON @extschema@.msg_mailing_links USING brin (message_id) WITH (pages_per_range = 16, autosummarize = on);
COMMENT ON TABLE @extschema@.msg_mailing_links IS 'which message a client got of which mailing; kept until the mailing is deleted, even where the message is gone';
COMMENT ON COLUMN @extschema@.msg_mailing_links.mailing_id IS 'the mailing';
COMMENT ON COLUMN @extschema@.msg_mailing_links.client_id IS 'the client, who may be gone';
COMMENT ON COLUMN @extschema@.msg_mailing_links.message_id IS 'the message, which may be gone';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_clients', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_clients_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_mailings', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_mailings_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_mailing_links', '');

CREATE TRIGGER zz_msgsys_schedule AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.msg_mailings
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_schedule_trigger();

CREATE FUNCTION @extschema@.msg_client_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_client_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_client_trigger() IS 'brings a client''s phone and time zone into one form, and derives the operator code';
CREATE TRIGGER zz_msgsys_client BEFORE INSERT OR UPDATE ON @extschema@.msg_clients
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_client_trigger();

/* msg_phone(phone): a phone number as msg_clients has it. Errors: 22023 not E.164, nor 7XXXXXXXXXX. */
CREATE FUNCTION @extschema@.msg_phone(phone text) RETURNS text
AS 'MODULE_PATHNAME', 'msg_phone' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_phone IS 'a phone number in the form of E.164 that msg_clients has';

/* msg_time_zone(time_zone): a time zone as msg_clients has it. Errors: 22023 neither a name of the IANA database nor an offset of at most 14 hours. */
CREATE FUNCTION @extschema@.msg_time_zone(time_zone text) RETURNS text
AS 'MODULE_PATHNAME', 'msg_time_zone' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_time_zone IS 'a time zone in the form that msg_clients has';

/*
 * msg_window(time_zone, window_from, window_to, at): the span from one time of the day to another, by the clocks of a time zone, that is open at a
 * time or opens next; without times, always. Over midnight where window_to is the earlier. Times that clocks leave out begin or end the span where
 * they jump; of those that come twice the second begins it and the first ends it, so that clocks always show a time within it.
 * Errors: 22023 no time zone, no two times, no finite time.
 */
CREATE FUNCTION @extschema@.msg_window(time_zone text, window_from time, window_to time, at timestamptz) RETURNS tstzrange
AS 'MODULE_PATHNAME', 'msg_window' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_window IS 'when, by the clocks of a time zone, it is between two times of the day: the span that holds a moment, or the next one';

/*
 * msg_mailing_payload(text, ...): what a client gets of a mailing: {"text", "phone", "client_id", "mailing_id"}, the text with its placeholders
 * replaced. A placeholder without a value stands for nothing; what is no placeholder ({, {a b}) stays. NULL where the text gets longer than msgsys.max_message_bytes.
 */
CREATE FUNCTION @extschema@.msg_mailing_payload(text text, mailing_id bigint, client_id bigint, phone text, operator_code text DEFAULT NULL,
	tag text DEFAULT NULL, time_zone text DEFAULT NULL, attributes jsonb DEFAULT NULL) RETURNS jsonb
AS 'MODULE_PATHNAME', 'msg_mailing_payload' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.msg_mailing_payload IS 'the payload of a mailing''s message to a client';

/*
 * msg_mailing_follow(mailing, after, up_to, at): have those messages of a mailing that are not yet sent, of the clients with ids above after and up to
 * up_to, follow the mailing and the clients as they are now: text, time; cancelled where the client does not match any more, or is gone.
 * Returns how many were changed and cancelled, and what the workers are to be told of: the lowest id that is idle, and the earliest due time.
 */
CREATE FUNCTION @extschema@.msg_mailing_follow(
	mailing bigint, after bigint, up_to bigint, at timestamptz,
	OUT changed bigint, OUT cancelled bigint, OUT lowest_id bigint, OUT earliest_due timestamptz)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	WITH waiting AS MATERIALIZED (
		-- from link to message and not the other way, which a worker, who must not sort, would find cheaper
		SELECT m.id, l.client_id
		FROM (SELECT l.client_id, l.message_id FROM @extschema@.msg_mailing_links l
			WHERE l.mailing_id = mailing AND l.client_id > after AND l.client_id <= up_to ORDER BY l.message_id OFFSET 0) l
		CROSS JOIN LATERAL (SELECT m.id FROM @extschema@.messages m
			WHERE m.id = l.message_id AND m.status IN ('scheduled', 'idle', 'retry') LIMIT 1 FOR NO KEY UPDATE) m),
	wanted AS MATERIALIZED (
		SELECT w.id, w.client_id, c.id IS NOT NULL AND (g.operator_codes IS NULL OR c.operator_code = ANY (g.operator_codes))
				AND (g.tags IS NULL OR c.tag = ANY (g.tags)) AND g.status IN ('running', 'expanded') AS matches,
			@extschema@.msg_mailing_payload(g.text, g.id, c.id, c.phone, c.operator_code, c.tag, c.time_zone, c.attributes) AS payload,
			g.ends_at, @extschema@.msg_window(c.time_zone, g.window_from, g.window_to, greatest(g.starts_at, at)) AS span, greatest(g.starts_at, at) AS base
		FROM waiting w JOIN @extschema@.msg_mailings g ON g.id = mailing LEFT JOIN @extschema@.msg_clients c ON c.id = w.client_id),
	planned AS MATERIALIZED (
		SELECT w.id, w.client_id, w.payload, nullif(greatest(lower(w.span), w.base), at) AS opens, least(upper(w.span), w.ends_at) AS expires,
			matches AND payload IS NOT NULL AND greatest(lower(w.span), w.base) < w.ends_at AS wanted, w.matches
		FROM wanted w),
	moved AS (
		UPDATE @extschema@.messages m SET
			status = CASE WHEN NOT p.wanted THEN 'cancelled' WHEN m.status = 'idle' AND p.opens IS NOT NULL THEN 'scheduled' ELSE m.status END,
			finished_at = CASE WHEN NOT p.wanted THEN at END,
			payload = CASE WHEN p.wanted THEN p.payload ELSE m.payload END,
			expires_at = CASE WHEN p.wanted THEN p.expires ELSE m.expires_at END,
			due_at = CASE WHEN NOT p.wanted THEN m.due_at
				WHEN m.status = 'retry' THEN greatest(m.due_at, p.opens)
				WHEN m.status = 'idle' AND p.opens IS NULL THEN NULL
				WHEN p.opens IS NOT NULL THEN p.opens
				ELSE least(m.due_at, at) END
		FROM planned p WHERE m.id = p.id
		RETURNING m.id, m.status, m.due_at, p.client_id, p.matches),
	unlinked AS (
		-- who is not meant any more is no client of the mailing; who has no time left, or whose mailing ends, stays one
		DELETE FROM @extschema@.msg_mailing_links l
		USING moved CROSS JOIN LATERAL (SELECT k.ctid FROM @extschema@.msg_mailing_links k
			WHERE k.mailing_id = mailing AND k.client_id = moved.client_id LIMIT 1) k
		WHERE l.ctid = k.ctid AND NOT moved.matches
			AND EXISTS (SELECT FROM @extschema@.msg_mailings g WHERE g.id = mailing AND g.status IN ('running', 'expanded')))
	SELECT count(*) FILTER (WHERE status <> 'cancelled'), count(*) FILTER (WHERE status = 'cancelled'),
		min(id) FILTER (WHERE status = 'idle'), min(due_at) FILTER (WHERE status IN ('scheduled', 'retry'))
	INTO changed, cancelled, lowest_id, earliest_due FROM moved;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_follow IS 'has what is not yet sent of a mailing follow the mailing and the clients as they are now';

/*
 * msg_mailing_expand(mailing, after, up_to, at): a message to each client of a mailing, of those with ids above after and up to up_to, who
 * has none yet. Returns how many were made and left out, the first and the last id, and what msg_mailing_follow() returns for the workers.
 */
CREATE FUNCTION @extschema@.msg_mailing_expand(
	mailing bigint, after bigint, up_to bigint, at timestamptz,
	OUT created bigint, OUT left_out bigint, OUT first_id bigint, OUT last_id bigint, OUT lowest_id bigint, OUT earliest_due timestamptz)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- scalars, for a field of a record costs ten times as much to read, and these are read for each client
	to_channel text;
	template text;
	codes text[];
	some_tags text[];
	from_time time;
	to_time time;
	ends timestamptz;
	base timestamptz;
	once_more boolean;
BEGIN
	SELECT o.channel, o.text, o.operator_codes, o.tags, o.window_from, o.window_to, o.ends_at, greatest(o.starts_at, at), o.again
	INTO STRICT to_channel, template, codes, some_tags, from_time, to_time, ends, base, once_more
	FROM @extschema@.msg_mailings o WHERE o.id = mailing;
	WITH made AS (
		INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, payload, status, due_at, expires_at)
		SELECT to_channel, c.id, 'mailing', c.payload, CASE WHEN c.opens > at THEN 'scheduled'::@extschema@.msg_status ELSE 'idle' END,
			CASE WHEN c.opens > at THEN c.opens END, c.expires
		FROM (
			SELECT c.id, greatest(lower(w.span), base) AS opens, least(upper(w.span), ends) AS expires,
				@extschema@.msg_mailing_payload(template, mailing, c.id, c.phone, c.operator_code, c.tag, c.time_zone, c.attributes) AS payload
			FROM @extschema@.msg_clients c, LATERAL (SELECT @extschema@.msg_window(c.time_zone, from_time, to_time, base) AS span OFFSET 0) w
			WHERE c.id > after AND c.id <= up_to AND (codes IS NULL OR c.operator_code = ANY (codes))
				AND (some_tags IS NULL OR c.tag = ANY (some_tags))
				AND (NOT once_more OR NOT EXISTS (SELECT FROM @extschema@.msg_mailing_links l WHERE l.mailing_id = mailing AND l.client_id = c.id))
			ORDER BY c.id OFFSET 0) c
		WHERE c.payload IS NOT NULL AND c.opens < ends
		RETURNING m.id, m.message_key::bigint AS client_id, m.status, m.due_at),
	linked AS (
		INSERT INTO @extschema@.msg_mailing_links (mailing_id, client_id, message_id) SELECT mailing, client_id, id FROM made)
	SELECT count(*), (
			SELECT count(*) FROM @extschema@.msg_clients c
			WHERE c.id > after AND c.id <= up_to AND (codes IS NULL OR c.operator_code = ANY (codes))
				AND (some_tags IS NULL OR c.tag = ANY (some_tags))
				AND (NOT once_more OR NOT EXISTS (SELECT FROM @extschema@.msg_mailing_links l WHERE l.mailing_id = mailing AND l.client_id = c.id))) - count(*),
		min(id), max(id), min(id) FILTER (WHERE status = 'idle'), min(due_at)
	INTO created, left_out, first_id, last_id, lowest_id, earliest_due FROM made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_expand IS 'makes the messages of a mailing to a range of clients';

/*
 * msg_mailings_run(at, most): one piece of the work that mailings have to be done at a time, for the mailing that has waited longest: at most so many
 * clients are looked at, an eighth of that where messages are changed. Called by the scheduler, and by tests. Returns which mailing that was (NULL: there is nothing to do), what was
 * done, and when there is something to do next (NULL: never); foreign: the mailing was restored from another database, and nothing was done.
 */
CREATE FUNCTION @extschema@.msg_mailings_run(
	at timestamptz DEFAULT NULL, most integer DEFAULT 10000, restored_before timestamptz DEFAULT '-infinity',
	OUT mailing bigint, OUT channel text, OUT first_client bigint, OUT last_client bigint, OUT created bigint, OUT changed bigint, OUT cancelled bigint,
	OUT first_id bigint, OUT last_id bigint, OUT lowest_id bigint, OUT earliest_due timestamptz, OUT "foreign" boolean, OUT next_at timestamptz)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	now_at timestamptz := coalesce(msg_mailings_run.at, @extschema@.msg_now());
	g @extschema@.msg_mailings;
	made record;
	followed record;
	skipped bigint := 0;
	done boolean := true;
BEGIN
	created := 0;
	changed := 0;
	cancelled := 0;
	"foreign" := false;
	SELECT * INTO g FROM @extschema@.msg_mailings o WHERE o.act_at <= now_at ORDER BY o.act_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
	IF FOUND AND g.created_at < restored_before THEN
		"foreign" := true;
		RETURN;
	END IF;
	IF FOUND THEN
		mailing := g.id;
		channel := g.channel;
		first_client := g.next_client;
		IF g.status IN ('planned', 'running') AND g.ends_at <= now_at OR g.status = 'expanded' THEN
			UPDATE @extschema@.msg_mailings o SET status = 'finished', act_at = NULL WHERE o.id = g.id;
		ELSE
			IF g.status = 'planned' THEN
				UPDATE @extschema@.msg_mailings o SET status = 'running' WHERE o.id = g.id;
				g.status := 'running';
			END IF;
			-- a message that is changed costs several times what a new one does
			IF g.again OR g.status <> 'running' THEN
				most := greatest(most / 8, 1);
			END IF;
			-- what may be many rows is gone through in the order of clients
			IF g.status = 'running' AND NOT g.again THEN
				SELECT max(s.id), count(*) < most INTO last_client, done
				FROM (SELECT c.id FROM @extschema@.msg_clients c WHERE c.id > g.next_client ORDER BY c.id LIMIT most) s;
			ELSIF g.status = 'running' THEN
				SELECT max(s.id), count(*) < most INTO last_client, done
				FROM (SELECT u.id FROM (
						(SELECT c.id FROM @extschema@.msg_clients c WHERE c.id > g.next_client ORDER BY c.id LIMIT most)
						UNION (SELECT l.client_id FROM @extschema@.msg_mailing_links l WHERE l.mailing_id = g.id AND l.client_id > g.next_client ORDER BY l.client_id LIMIT most)) u(id)
					ORDER BY u.id LIMIT most) s;
			ELSE
				SELECT max(s.client_id), count(*) < most INTO last_client, done
				FROM (SELECT l.client_id FROM @extschema@.msg_mailing_links l WHERE l.mailing_id = g.id AND l.client_id > g.next_client ORDER BY l.client_id LIMIT most) s;
			END IF;
			last_client := coalesce(last_client, g.next_client);
			IF g.again OR g.status <> 'running' THEN
				SELECT * INTO followed FROM @extschema@.msg_mailing_follow(g.id, g.next_client, last_client, now_at);
				changed := followed.changed;
				cancelled := followed.cancelled;
				lowest_id := followed.lowest_id;
				earliest_due := followed.earliest_due;
			END IF;
			IF g.status = 'running' THEN
				SELECT * INTO made FROM @extschema@.msg_mailing_expand(g.id, g.next_client, last_client, now_at);
				created := made.created;
				first_id := made.first_id;
				last_id := made.last_id;
				skipped := made.left_out;
				lowest_id := least(lowest_id, made.lowest_id);
				earliest_due := least(earliest_due, made.earliest_due);
			ELSIF g.status = 'deleting' THEN
				DELETE FROM @extschema@.msg_mailing_links l
				WHERE l.mailing_id = g.id AND l.client_id > g.next_client AND l.client_id <= last_client;
			END IF;
			IF done AND g.status = 'deleting' THEN
				DELETE FROM @extschema@.msg_mailings o WHERE o.id = g.id;
			ELSE
				UPDATE @extschema@.msg_mailings o SET next_client = last_client,
					status = CASE WHEN NOT done THEN o.status WHEN o.status = 'running' THEN 'expanded' ELSE 'cancelled' END,
					left_out = o.left_out + skipped,
					act_at = CASE WHEN NOT done THEN now_at WHEN o.status = 'running' THEN o.ends_at END
				WHERE o.id = g.id;
			END IF;
		END IF;
	END IF;
	SELECT min(o.act_at) INTO next_at FROM @extschema@.msg_mailings o WHERE o.act_at IS NOT NULL;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailings_run IS 'does one piece of the work of mailings that is due; called by the scheduler';

/*
 * msg_client_set(phone, ...): make a client, or change the one with this id, or else with this phone. What is left out (NULL) stays as it is; an empty
 * operator_code is derived from the phone again, an empty tag taken away. What is not yet sent of running mailings follows the change.
 * Returns the row. Errors: 22023 a phone or time zone that cannot be, 23502 a new client without phone, 23505 another client has the phone.
 */
CREATE FUNCTION @extschema@.msg_client_set(
	phone text DEFAULT NULL, operator_code text DEFAULT NULL, tag text DEFAULT NULL, time_zone text DEFAULT NULL, attributes jsonb DEFAULT NULL,
	id bigint DEFAULT NULL)
RETURNS @extschema@.msg_clients LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	old @extschema@.msg_clients;
	new @extschema@.msg_clients;
BEGIN
	IF msg_client_set.id IS NOT NULL THEN
		SELECT * INTO old FROM @extschema@.msg_clients c WHERE c.id = msg_client_set.id FOR UPDATE;
	ELSE
		SELECT * INTO old FROM @extschema@.msg_clients c WHERE c.phone = @extschema@.msg_phone(msg_client_set.phone) FOR UPDATE;
	END IF;
	IF FOUND THEN
		UPDATE @extschema@.msg_clients c SET
			phone = coalesce(msg_client_set.phone, old.phone), operator_code = coalesce(msg_client_set.operator_code, old.operator_code),
			tag = nullif(coalesce(msg_client_set.tag, old.tag), ''), time_zone = coalesce(msg_client_set.time_zone, old.time_zone),
			attributes = coalesce(msg_client_set.attributes, old.attributes), updated_at = now()
		WHERE c.id = old.id RETURNING c.* INTO new;
		PERFORM @extschema@.msg_client_follow(new.id);
	ELSE
		INSERT INTO @extschema@.msg_clients AS c (id, phone, operator_code, tag, time_zone, attributes)
		VALUES (coalesce(msg_client_set.id, nextval('@extschema@.msg_clients_id_seq')), msg_client_set.phone, msg_client_set.operator_code,
			nullif(msg_client_set.tag, ''), coalesce(msg_client_set.time_zone, 'UTC'), coalesce(msg_client_set.attributes, '{}'))
		RETURNING c.* INTO new;
	END IF;
	RETURN new;
END $$;
COMMENT ON FUNCTION @extschema@.msg_client_set IS 'makes a client of mailings or changes one, found by id or else by phone; what is left out stays as it is';

/* msg_client_drop(id): drop a client, and cancel what is not yet sent to it. Returns whether there was one. */
CREATE FUNCTION @extschema@.msg_client_drop(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_clients c WHERE c.id = msg_client_drop.id;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM @extschema@.msg_client_follow(msg_client_drop.id);
	RETURN true;
END $$;
COMMENT ON FUNCTION @extschema@.msg_client_drop IS 'drops a client of mailings and cancels what is not yet sent to it; false where there is none';

/* msg_client_follow(id): have what is not yet sent to a client follow a change of it. Waits for the scheduler, a piece of its work at most. */
CREATE FUNCTION @extschema@.msg_client_follow(id bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	mailing bigint;
BEGIN
	-- locked, lest the scheduler makes a message at this moment of what the client was before
	FOR mailing IN SELECT g.id FROM @extschema@.msg_mailings g WHERE g.status IN ('running', 'expanded') ORDER BY g.id FOR NO KEY UPDATE LOOP
		PERFORM @extschema@.msg_mailing_follow(mailing, msg_client_follow.id - 1, msg_client_follow.id, @extschema@.msg_now());
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_client_follow IS 'has what is not yet sent to a client follow a change of it; called by msg_client_set() and msg_client_drop()';

/* msg_mailing_check(channel, ends_at): refuse what cannot be a mailing's: 42704 no such channel, 22023 an end that is past. */
CREATE FUNCTION @extschema@.msg_mailing_check(channel text, ends_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF NOT EXISTS (SELECT FROM @extschema@.msg_channel_settings c WHERE c.channel = msg_mailing_check.channel) THEN
		RAISE undefined_object USING MESSAGE = format('channel "%s" does not exist', msg_mailing_check.channel),
			HINT = 'Make it with msg_channel_set().';
	END IF;
	IF msg_mailing_check.ends_at <= @extschema@.msg_now() THEN
		RAISE invalid_parameter_value USING MESSAGE = 'mailing ends before it can begin', DETAIL = format('ends_at is %s.', msg_mailing_check.ends_at);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_check IS 'refuses a channel or an end that a mailing cannot have';

/*
 * msg_mailing_create(text, ends_at, ...): plan a mailing. text: see the column of msg_mailings; starts_at: now, where it is left out; channel;
 * operator_codes and tags: only clients with one of these (NULL: any); window_from and window_to: the time of the day, by each client's own
 * clock, within which messages are sent (NULL: all day), over midnight where window_to is the earlier. At its start each client becomes a message, sent in
 * the first window that is open or opens; what is not sent when that closes waits for the next day's, and expires at the mailing's end.
 * Returns its id. Errors: 42704 no such channel, 22023 an end that is past, 23502 no text or end, 23514 no start before the end, half a window.
 */
CREATE FUNCTION @extschema@.msg_mailing_create(
	text text, ends_at timestamptz, starts_at timestamptz DEFAULT NULL, channel text DEFAULT 'default', operator_codes text[] DEFAULT NULL,
	tags text[] DEFAULT NULL, window_from time DEFAULT NULL, window_to time DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made bigint;
	start_time timestamptz := coalesce(msg_mailing_create.starts_at, @extschema@.msg_now());
BEGIN
	PERFORM @extschema@.msg_mailing_check(msg_mailing_create.channel, msg_mailing_create.ends_at);
	INSERT INTO @extschema@.msg_mailings (text, channel, operator_codes, tags, starts_at, ends_at, window_from, window_to, act_at)
	VALUES (msg_mailing_create.text, msg_mailing_create.channel, nullif(msg_mailing_create.operator_codes, '{}'), nullif(msg_mailing_create.tags, '{}'),
		start_time, msg_mailing_create.ends_at, msg_mailing_create.window_from, msg_mailing_create.window_to, start_time)
	RETURNING id INTO made;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_create IS 'plans a mailing: a text to all clients of a filter, each within a span of the day by the client''s own clock; returns its id';

/*
 * msg_mailing_update(id, ...): change a mailing that is not over; the parameters are those of msg_mailing_create(). What is left out (NULL) stays as it is, an
 * empty array takes a filter away, the times 00:00 and 24:00 the window. After its start the clients are gone through again: what is not yet sent
 * follows, who is not meant any more gets nothing, who is now meant gets a message; that takes the scheduler a moment, and what workers have in hand then is sent as it was.
 * Returns the row. Errors: 42704 no such mailing, 55000 it is over, or its channel is to change after its start; and msg_mailing_create()'s.
 */
CREATE FUNCTION @extschema@.msg_mailing_update(
	id bigint, text text DEFAULT NULL, ends_at timestamptz DEFAULT NULL, starts_at timestamptz DEFAULT NULL, channel text DEFAULT NULL,
	operator_codes text[] DEFAULT NULL, tags text[] DEFAULT NULL, window_from time DEFAULT NULL, window_to time DEFAULT NULL)
RETURNS @extschema@.msg_mailings LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	g @extschema@.msg_mailings;
BEGIN
	SELECT * INTO g FROM @extschema@.msg_mailings o WHERE o.id = msg_mailing_update.id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE undefined_object USING MESSAGE = format('mailing %s does not exist', msg_mailing_update.id);
	END IF;
	IF g.status NOT IN ('planned', 'running', 'expanded') THEN
		RAISE object_not_in_prerequisite_state USING MESSAGE = format('mailing %s is %s', g.id, g.status);
	END IF;
	IF g.status <> 'planned' AND msg_mailing_update.channel <> g.channel THEN
		RAISE object_not_in_prerequisite_state USING MESSAGE = format('mailing %s has begun: its channel cannot be changed any more', g.id),
			HINT = 'Cancel it, and make another one.';
	END IF;
	PERFORM @extschema@.msg_mailing_check(coalesce(msg_mailing_update.channel, g.channel), coalesce(msg_mailing_update.ends_at, g.ends_at));
	UPDATE @extschema@.msg_mailings o SET
		text = coalesce(msg_mailing_update.text, g.text), channel = coalesce(msg_mailing_update.channel, g.channel),
		operator_codes = nullif(coalesce(msg_mailing_update.operator_codes, g.operator_codes), '{}'),
		tags = nullif(coalesce(msg_mailing_update.tags, g.tags), '{}'),
		starts_at = coalesce(msg_mailing_update.starts_at, g.starts_at), ends_at = coalesce(msg_mailing_update.ends_at, g.ends_at),
		window_from = coalesce(msg_mailing_update.window_from, g.window_from), window_to = coalesce(msg_mailing_update.window_to, g.window_to),
		status = CASE WHEN g.status = 'planned' THEN 'planned' ELSE 'running' END, again = g.status <> 'planned', next_client = 0, left_out = 0,
		act_at = CASE WHEN g.status = 'planned' THEN coalesce(msg_mailing_update.starts_at, g.starts_at) ELSE @extschema@.msg_now() END,
		updated_at = now(), updated_by = CURRENT_USER
	WHERE o.id = g.id RETURNING o.* INTO g;
	RETURN g;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_update IS 'changes a mailing that is not over; what is left out stays as it is, and what is not yet sent follows';

/*
 * msg_mailing_cancel(id): cancel a mailing: what is not yet sent is cancelled, which takes the scheduler a moment.
 * Returns whether it was cancelled: false where it is over already, or not there.
 */
CREATE FUNCTION @extschema@.msg_mailing_cancel(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE @extschema@.msg_mailings o SET status = CASE WHEN o.status = 'planned' THEN 'cancelled' ELSE 'cancelling' END, next_client = 0,
		act_at = CASE WHEN o.status <> 'planned' THEN @extschema@.msg_now() END, updated_at = now(), updated_by = CURRENT_USER
	WHERE o.id = msg_mailing_cancel.id AND o.status IN ('planned', 'running', 'expanded');
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_cancel IS 'cancels a mailing and what is not yet sent of it; false where it is over already';

/*
 * msg_mailing_delete(id): cancel a mailing, and forget it and which messages were its own; the messages stay. Where it has begun, that takes the
 * scheduler a moment. Returns whether there was one.
 */
CREATE FUNCTION @extschema@.msg_mailing_delete(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM @extschema@.msg_mailings o WHERE o.id = msg_mailing_delete.id AND (o.status = 'planned'
		OR o.status = 'cancelled' AND NOT EXISTS (SELECT FROM @extschema@.msg_mailing_links l WHERE l.mailing_id = o.id));
	IF NOT FOUND THEN
		UPDATE @extschema@.msg_mailings o SET status = 'deleting', next_client = 0, act_at = @extschema@.msg_now(), updated_at = now(), updated_by = CURRENT_USER
		WHERE o.id = msg_mailing_delete.id AND o.status <> 'deleting';
	END IF;
	RETURN FOUND;
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_delete IS 'cancels a mailing and forgets it; false where there is none';

-- By way of the mailings, so that a client alone is found too, by a look at the primary key for each of them.
CREATE VIEW @extschema@.msg_mailing_log AS
SELECT g.id AS mailing_id, l.client_id, l.message_id, c.phone, m.channel, m.status, m.due_at, m.expires_at, m.attempts, m.sent_at, m.delivered_at, m.finished_at,
	m.response_code, m.response_id, m.last_error, m.payload ->> 'text' AS text
FROM @extschema@.msg_mailings g
JOIN @extschema@.msg_mailing_links l ON l.mailing_id = g.id
LEFT JOIN @extschema@.messages m ON m.id = l.message_id
LEFT JOIN @extschema@.msg_clients c ON c.id = l.client_id;
COMMENT ON VIEW @extschema@.msg_mailing_log IS 'what became of each client of each mailing, to be found by mailing, message or client; what is of a message that was purged is null';

/*
 * msg_mailing_stats(id): a mailing's clients (NULL: each mailing's) by what became of their messages. clients is the sum of the statuses and of
 * purged (the message is not kept any more); left_out is beside that, see the column of msg_mailings.
 */
CREATE FUNCTION @extschema@.msg_mailing_stats(
	id bigint DEFAULT NULL,
	OUT mailing_id bigint, OUT state text, OUT starts_at timestamptz, OUT ends_at timestamptz, OUT clients bigint, OUT left_out bigint,
	OUT scheduled bigint, OUT idle bigint, OUT retry bigint, OUT sent bigint, OUT received bigint, OUT delivered bigint, OUT dead bigint,
	OUT cancelled bigint, OUT expired bigint, OUT purged bigint)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT g.id, g.status, g.starts_at, g.ends_at, s.clients, g.left_out, s.scheduled, s.idle, s.retry, s.sent, s.received, s.delivered, s.dead, s.cancelled,
	s.expired, s.purged
FROM @extschema@.msg_mailings g, LATERAL (
	SELECT count(*) AS clients, count(*) FILTER (WHERE m.status = 'scheduled') AS scheduled, count(*) FILTER (WHERE m.status = 'idle') AS idle,
		count(*) FILTER (WHERE m.status = 'retry') AS retry, count(*) FILTER (WHERE m.status = 'sent') AS sent,
		count(*) FILTER (WHERE m.status = 'received') AS received, count(*) FILTER (WHERE m.status = 'delivered') AS delivered,
		count(*) FILTER (WHERE m.status = 'dead') AS dead, count(*) FILTER (WHERE m.status = 'cancelled') AS cancelled,
		count(*) FILTER (WHERE m.status = 'expired') AS expired, count(*) FILTER (WHERE m.id IS NULL) AS purged
	FROM @extschema@.msg_mailing_links l LEFT JOIN @extschema@.messages m ON m.id = l.message_id
	WHERE l.mailing_id = g.id) s
WHERE msg_mailing_stats.id IS NULL OR g.id = msg_mailing_stats.id
ORDER BY g.id
$$;
COMMENT ON FUNCTION @extschema@.msg_mailing_stats IS 'clients of a mailing, or of each (null), by what became of their messages';

/*
 * msg_mailing_messages(id, status, limit, after): the messages of a mailing, of one status or any (NULL), in the order of clients, those with ids above after.
 */
CREATE FUNCTION @extschema@.msg_mailing_messages(id bigint, status @extschema@.msg_status DEFAULT NULL, "limit" integer DEFAULT 100, after bigint DEFAULT 0)
RETURNS SETOF @extschema@.msg_mailing_log LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF msg_mailing_messages."limit" < 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'limit must not be negative';
	END IF;
	RETURN QUERY SELECT g.* FROM @extschema@.msg_mailing_log g
	WHERE g.mailing_id = msg_mailing_messages.id AND g.client_id > msg_mailing_messages.after
		AND (msg_mailing_messages.status IS NULL OR g.status = msg_mailing_messages.status)
	ORDER BY g.client_id LIMIT msg_mailing_messages."limit";
END $$;
COMMENT ON FUNCTION @extschema@.msg_mailing_messages IS 'the messages of a mailing, by client, of one status or any (null)';

/*
 * msg_daily_report(day): what ended on a day (from midnight to midnight by the session's time zone) of each mailing that was running on it: by
 * outcome, and how many of its messages have not ended until now. Messages that were purged are not counted.
 */
CREATE FUNCTION @extschema@.msg_daily_report(
	day date DEFAULT @extschema@.msg_now()::date - 1,
	OUT mailing_id bigint, OUT state text, OUT delivered bigint, OUT sent bigint, OUT dead bigint, OUT expired bigint, OUT cancelled bigint, OUT waiting bigint)
RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT g.id, g.status, s.delivered, s.sent, s.dead, s.expired, s.cancelled, s.waiting
FROM @extschema@.msg_mailings g, LATERAL (
	SELECT count(*) FILTER (WHERE m.status = 'delivered' AND t.ended) AS delivered, count(*) FILTER (WHERE m.status IN ('sent', 'received') AND t.ended) AS sent,
		count(*) FILTER (WHERE m.status = 'dead' AND t.ended) AS dead, count(*) FILTER (WHERE m.status = 'expired' AND t.ended) AS expired,
		count(*) FILTER (WHERE m.status = 'cancelled' AND t.ended) AS cancelled, count(*) FILTER (WHERE m.finished_at IS NULL) AS waiting
	FROM @extschema@.msg_mailing_links l JOIN @extschema@.messages m ON m.id = l.message_id,
		LATERAL (SELECT m.finished_at >= msg_daily_report.day::timestamptz AND m.finished_at < (msg_daily_report.day + 1)::timestamptz AS ended) t
	WHERE l.mailing_id = g.id) s
WHERE g.starts_at < (msg_daily_report.day + 1)::timestamptz AND g.ends_at >= msg_daily_report.day::timestamptz AND g.status <> 'planned'
ORDER BY g.id
$$;
COMMENT ON FUNCTION @extschema@.msg_daily_report IS 'what ended on a day of each mailing that was running on it, by outcome';

-- ---------------------------------------------------------------- Debezium's outbox, samples

/*
 * The view inserts straight into messages, as fast as an INSERT there. aggregatetype is the channel (an unknown one is msg_create()'s error), id the
 * deduplication key. What an application deletes after its INSERT, as Debezium's allow, is to be sent all the same: a DELETE does nothing.
 */
CREATE VIEW @extschema@.msg_outbox AS
SELECT dedup_key AS id, channel AS aggregatetype, message_key AS aggregateid, event_type AS type, payload FROM @extschema@.messages;
CREATE RULE msg_outbox_delete AS ON DELETE TO @extschema@.msg_outbox DO INSTEAD NOTHING;
COMMENT ON VIEW @extschema@.msg_outbox IS 'messages by the columns of Debezium''s outbox table: an INSERT creates a message; id is its deduplication key, aggregatetype its channel, aggregateid its key, type its event type; a DELETE does nothing';
DO $$
BEGIN
	-- with the rights of who inserts, row security among them; version 14 knows the owner's alone
	IF pg_catalog.current_setting('server_version_num')::integer >= 150000 THEN
		ALTER VIEW @extschema@.msg_outbox SET (security_invoker = true);
	END IF;
END $$;

/*
 * msg_sample(n, seed, channel): create n messages as a shop might send them: an order's events, keyed by the customer, with a phone number and a text. The same n, seed
 * and version of PostgreSQL make the same messages, but for ids and times; nothing is removed. Returns how many were made. Errors: 22023 n is negative; and msg_create()'s.
 */
CREATE FUNCTION @extschema@.msg_sample(n integer DEFAULT 10, seed bigint DEFAULT 1, channel text DEFAULT 'default') RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made bigint;
	names constant text[] := '{Anna,Bilal,Chen,Dilek,Emma,Farid,Giulia,Hans,Ines,Jan,Kemal,Lena,Mei,Noah,Olga,Priya,Quentin,Rosa,Samir,Tuğba,Umut,Vera,Wei,Yusuf,Zoë}';
	goods constant text[] := '{lamp,chair,desk,kettle,scarf,umbrella,backpack,headphones,notebook,bottle}';
	currencies constant text[] := '{EUR,TRY,USD,GBP}';
	events constant text[] := '{created,paid,shipped,delivered,cancelled}';
BEGIN
	IF msg_sample.n IS NULL OR msg_sample.n < 0 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'n must not be negative';
	END IF;
	-- each number that is drawn is a hash of the message's number and the seed
	WITH drawn AS (
		SELECT g, 1000 + r[1] % 9000 AS customer, 100000 + g AS number, 1 + r[2] % 3 AS count, (100 + r[3] % 20000) / 100.0 AS price, names[1 + r[1] % 25] AS name,
			goods[1 + r[4] % 10] AS good, currencies[1 + r[1] % 4] AS currency, events[1 + r[5] % 5] AS event, '+9055' || lpad((r[1] % 9000 * 11003 % 100000000)::text, 8, '0') AS phone
		FROM generate_series(1, msg_sample.n) g,
			LATERAL (SELECT ARRAY(SELECT hashint8extended(g, msg_sample.seed * 8 + k) & 2147483647 FROM generate_series(1, 5) k) AS r OFFSET 0) r),
	inserted AS (
		INSERT INTO @extschema@.messages AS m (channel, message_key, event_type, payload)
		SELECT msg_sample.channel, 'customer-' || d.customer, 'order.' || d.event, jsonb_build_object('order', d.number, 'customer', jsonb_build_object('id', d.customer, 'name', d.name),
			'items', jsonb_build_array(jsonb_build_object('name', d.good, 'count', d.count, 'price', d.price)), 'total', d.count * d.price, 'currency', d.currency,
			'to', d.phone, 'content', format('Dear %s, your order %s (%s × %s) was %s.', d.name, d.number, d.count, d.good, d.event))
		FROM drawn d ORDER BY d.g
		RETURNING 1)
	SELECT count(*) INTO made FROM inserted;
	RETURN made;
END $$;
COMMENT ON FUNCTION @extschema@.msg_sample IS 'creates n sample messages, the same for the same seed, and returns how many';

-- ---------------------------------------------------------------- seeing

CREATE FUNCTION @extschema@.msg_worker_slots(
	OUT database text, OUT stage text, OUT worker integer, OUT pid integer, OUT state text, OUT started_at timestamptz,
	OUT active_at timestamptz, OUT counters jsonb, OUT last_error text, OUT last_error_at timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'msg_worker_slots' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_worker_slots IS 'the workers of all databases, from shared memory; see the view msg_workers';

CREATE VIEW @extschema@.msg_workers AS
SELECT database, stage, worker, pid, state, started_at, active_at,
	(counters ->> 'claimed')::bigint AS claimed, (counters ->> 'sent')::bigint AS sent, (counters ->> 'refused')::bigint AS refused,
	(counters ->> 'records')::bigint AS records, (counters ->> 'received')::bigint AS received,
	(counters ->> 'delivered')::bigint AS delivered, (counters ->> 'failed')::bigint AS failed, last_error, last_error_at
FROM @extschema@.msg_worker_slots();
COMMENT ON VIEW @extschema@.msg_workers IS 'one row a worker: process, state, counters since its start, latest error';

/* msg_stats(): counters of this database's workers since their start, added up by stage. */
CREATE FUNCTION @extschema@.msg_stats(OUT stage text, OUT counter text, OUT value bigint) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT s.stage, c.key, sum(c.value::bigint)::bigint
FROM @extschema@.msg_worker_slots() s, jsonb_each_text(s.counters) c
WHERE s.database = current_database()
GROUP BY s.stage, c.key ORDER BY s.stage, c.key
$$;
COMMENT ON FUNCTION @extschema@.msg_stats IS 'counters of this database''s workers since they started, by stage';

COMMENT ON COLUMN @extschema@.msg_workers.database IS 'the database that it works for';
COMMENT ON COLUMN @extschema@.msg_workers.stage IS 'relay, receiver, webhook, scheduler or http';
COMMENT ON COLUMN @extschema@.msg_workers.worker IS 'its number within the stage, from 0';
COMMENT ON COLUMN @extschema@.msg_workers.pid IS 'its process; null while it has none';
COMMENT ON COLUMN @extschema@.msg_workers.state IS 'busy or idle; paused (all channels are), no broker set, broker down, extension absent, copy, not adopted (see msg_adopt()); starting, stopped, no worker slot (raise max_worker_processes), no database';
COMMENT ON COLUMN @extschema@.msg_workers.started_at IS 'when it was started the last time';
COMMENT ON COLUMN @extschema@.msg_workers.active_at IS 'when it last had something to do, or looked';
COMMENT ON COLUMN @extschema@.msg_workers.claimed IS 'messages that it took to send them';
COMMENT ON COLUMN @extschema@.msg_workers.sent IS 'messages that Kafka confirmed';
COMMENT ON COLUMN @extschema@.msg_workers.refused IS 'messages that Kafka refused; of http: requests that were refused before they were read';
COMMENT ON COLUMN @extschema@.msg_workers.records IS 'records of Kafka that it read';
COMMENT ON COLUMN @extschema@.msg_workers.received IS 'messages that such a record marked';
COMMENT ON COLUMN @extschema@.msg_workers.delivered IS 'messages that a webhook took';
COMMENT ON COLUMN @extschema@.msg_workers.failed IS 'attempts at a webhook that failed; of http: answers that did';
COMMENT ON COLUMN @extschema@.msg_workers.last_error IS 'what went wrong last, also when it is well again';
COMMENT ON COLUMN @extschema@.msg_workers.last_error_at IS 'when that was';
COMMENT ON COLUMN @extschema@.msg_backlog.channel IS 'the channel';
COMMENT ON COLUMN @extschema@.msg_backlog.status IS 'scheduled, idle, retry, or sent and received where more is to come';
COMMENT ON COLUMN @extschema@.msg_backlog.count IS 'how many messages';
COMMENT ON COLUMN @extschema@.msg_backlog.oldest_age IS 'for how long the oldest of them: since its creation; when sent or received, since then';
COMMENT ON COLUMN @extschema@.msg_mailing_log.mailing_id IS 'the mailing';
COMMENT ON COLUMN @extschema@.msg_mailing_log.client_id IS 'the client';
COMMENT ON COLUMN @extschema@.msg_mailing_log.message_id IS 'its message';
COMMENT ON COLUMN @extschema@.msg_mailing_log.phone IS 'the client''s number; null: the client is gone';
COMMENT ON COLUMN @extschema@.msg_mailing_log.text IS 'what is sent';
COMMENT ON COLUMN @extschema@.msg_channel_settings.has_webhook IS 'whether it has a webhook';
COMMENT ON COLUMN @extschema@.msg_outbox.id IS 'dedup_key of messages: unique within the channel';
COMMENT ON COLUMN @extschema@.msg_outbox.aggregatetype IS 'channel of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.aggregateid IS 'message_key of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.type IS 'event_type of messages';
COMMENT ON COLUMN @extschema@.msg_outbox.payload IS 'payload of messages';
-- the rest of these views' columns are those of a table
DO $$
DECLARE
	c record;
BEGIN
	FOR c IN SELECT v.relation, a.attname, pg_catalog.col_description(b.attrelid, b.attnum) AS words
		FROM (VALUES ('@extschema@.msg_mailing_log'::regclass, '@extschema@.messages'::regclass),
				('@extschema@.msg_channel_settings', '@extschema@.msg_channels'), ('@extschema@.msg_webhook_settings', '@extschema@.msg_webhooks')) v(relation, source)
			JOIN pg_catalog.pg_attribute a ON a.attrelid = v.relation AND a.attnum > 0 AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
			JOIN pg_catalog.pg_attribute b ON b.attrelid = v.source AND b.attname = a.attname
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', c.relation, c.attname, c.words);
	END LOOP;
END $$;

-- ---------------------------------------------------------------- HTTP

/*
 * msg_backlog_sample(channels, most): what waits in each of the first so many channels, by name, each status counted up to so many: its cost
 * is bounded, however much waits. oldest_age: seconds that the oldest message has waited which could go on now.
 * Runs with its owner's rights, for the HTTP workers' metrics, which read no message.
 */
CREATE FUNCTION @extschema@.msg_backlog_sample(channels integer DEFAULT 100, most integer DEFAULT 10000)
RETURNS TABLE (channel text, idle bigint, scheduled bigint, retry bigint, sent bigint, received bigint, oldest_age double precision,
	circuit_open boolean, paused boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT c.channel, i.n, d.scheduled, d.retry, s.n, r.n,
	greatest(0, extract(epoch FROM clock_timestamp() - least(i.since, d.since, r.since))),
	EXISTS (SELECT FROM @extschema@.msg_breakers b WHERE b.channel = c.channel AND b.state = 'open'),
	EXISTS (SELECT FROM @extschema@.msg_pauses p WHERE p.channel IN ('*', c.channel))
FROM (SELECT o.channel FROM @extschema@.msg_channel_settings o ORDER BY 1 LIMIT channels) c,
	LATERAL (SELECT count(*) AS n, min(m.created_at) AS since FROM (SELECT created_at FROM @extschema@.messages m
		WHERE m.status = 'idle' AND m.channel = c.channel ORDER BY m.id LIMIT most) m) i,
	LATERAL (SELECT count(*) FILTER (WHERE m.status = 'scheduled') AS scheduled, count(*) FILTER (WHERE m.status = 'retry') AS retry,
		min(m.due_at) FILTER (WHERE m.due_at < now()) AS since FROM (SELECT status, due_at FROM @extschema@.messages m
		WHERE m.status IN ('scheduled', 'retry') AND m.channel = c.channel ORDER BY m.due_at LIMIT most) m) d,
	LATERAL (SELECT count(*) AS n FROM (SELECT FROM @extschema@.messages m
		WHERE m.status = 'sent' AND m.finished_at IS NULL AND m.channel = c.channel ORDER BY m.sent_at LIMIT most) m) s,
	LATERAL (SELECT count(*) AS n, min(m.received_at) AS since FROM (SELECT received_at FROM @extschema@.messages m
		WHERE m.status = 'received' AND m.finished_at IS NULL AND m.channel = c.channel ORDER BY m.id LIMIT most) m) r
ORDER BY c.channel
$$;
COMMENT ON FUNCTION @extschema@.msg_backlog_sample IS 'what waits, by channel, counted up to a bound; for the metrics of the HTTP facade';

-- The routes of other systems (msgsys.http_compat): each function takes a request as src/http_compat.c makes it, and
-- answers as that system's clients expect it. What they call a message's text and its receiver are the members content and to of the payload.

/* msg_http_time(at): a time as RFC 3339 in UTC; null stays null. */
CREATE FUNCTION @extschema@.msg_http_time(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
COMMENT ON FUNCTION @extschema@.msg_http_time IS 'a time as other systems write it';

/* msg_http_number(request, name, default): a whole number of the query string; default where it is not said, null where it is none. */
CREATE FUNCTION @extschema@.msg_http_number(request jsonb, name text, "default" bigint DEFAULT NULL) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN NOT request -> 'query' ? name THEN "default"
	WHEN request -> 'query' ->> name ~ '^-?[0-9]{1,15}$' THEN (request -> 'query' ->> name)::bigint END
$$;
COMMENT ON FUNCTION @extschema@.msg_http_number IS 'a whole number of a request''s query string';

/* msg_http_body(request): the body as JSON, or null where it is none. */
CREATE FUNCTION @extschema@.msg_http_body(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN (request ->> 'body')::jsonb;
EXCEPTION WHEN data_exception THEN
	RETURN NULL;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_body IS 'the body of a request as JSON';

/* 000: {"message": text} becomes a message of the channel default. */
CREATE FUNCTION @extschema@.msg_http_000_create(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	message jsonb := @extschema@.msg_http_body(request) -> 'message';
BEGIN
	status := 400;
	IF jsonb_typeof(coalesce(message, '""')) <> 'string' OR jsonb_typeof(@extschema@.msg_http_body(request)) IS DISTINCT FROM 'object' THEN
		body := '{"error":"Bad request","message":"wrond data provided"}';
	ELSIF coalesce(message #>> '{}', '') = '' THEN
		body := '{"error":"Bad request","message":"message cannot be empty"}';
	ELSE
		PERFORM @extschema@.msg_create(jsonb_build_object('message', message));
		status := 200;
		body := '{"status":"created"}';
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_000_create IS 'POST /api/v1/create of system 000';

/* 000: all messages, the newest 10,000 of them, in the order of their ids; its word for sent is send. */
CREATE FUNCTION @extschema@.msg_http_000_messages(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('id', m.id, 'message', coalesce(m.payload ->> 'message', m.payload #>> '{}'),
	'status', CASE m.status WHEN 'sent' THEN 'send' ELSE m.status::text END) ORDER BY m.id), '[]')::text
FROM (SELECT * FROM @extschema@.messages ORDER BY id DESC LIMIT 10000) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_000_messages IS 'GET /api/v1/getMessages of system 000';

/* 001: what has come to a good end, 20 at a time, 100 at most. */
CREATE FUNCTION @extschema@.msg_http_001_sent(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, json_build_object('data', json_build_object('sentMessages', coalesce(json_agg(json_build_object(
	'id', m.id, 'content', m.payload ->> 'content', 'to', m.payload ->> 'to', 'sent', true,
	'sent_at', json_build_object('Time', @extschema@.msg_http_time(coalesce(m.delivered_at, m.sent_at, m.finished_at)), 'Valid', true),
	'created_at', @extschema@.msg_http_time(m.created_at)) ORDER BY m.id), '[]')), 'message', 'success')::text
FROM (SELECT * FROM @extschema@.messages s WHERE s.status IN ('sent', 'received', 'delivered') AND s.finished_at IS NOT NULL ORDER BY s.id
	LIMIT least(100, greatest(0, coalesce(@extschema@.msg_http_number(request, 'limit', 20), 20))) OFFSET greatest(0, coalesce(@extschema@.msg_http_number(request, 'offset', 0), 0))) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_001_sent IS 'GET /sent-messages of system 001';

/* 001: {"workerStatus": boolean} ends or begins the pause of all. */
CREATE FUNCTION @extschema@.msg_http_001_toggle(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	wanted jsonb := @extschema@.msg_http_body(request) -> 'workerStatus';
BEGIN
	content_type := 'text/plain; charset=utf-8';
	IF jsonb_typeof(wanted) IS DISTINCT FROM 'boolean' THEN
		status := 400;
		body := E'Invalid request body\n';
	ELSE
		status := 200;
		IF wanted::boolean THEN
			PERFORM @extschema@.msg_resume();
		ELSE
			PERFORM @extschema@.msg_pause(NULL, 'by POST /toggle-worker');
		END IF;
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_001_toggle IS 'POST /toggle-worker of system 001';

/* 002: its envelope. */
CREATE FUNCTION @extschema@.msg_http_002_reply(status integer, code integer, message text, data json) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT json_strip_nulls(json_build_object('status', status, 'internalCode', code, 'message', message, 'data', data))::text
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_reply IS 'the envelope of system 002';

CREATE FUNCTION @extschema@.msg_http_002_start(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN r.done THEN 200 ELSE 400 END, NULL, CASE WHEN r.done THEN @extschema@.msg_http_002_reply(200, 0, NULL, '"succeeded"')
	ELSE @extschema@.msg_http_002_reply(400, 400001, 'messenger job is already working', NULL) END
FROM (SELECT @extschema@.msg_resume() AS done) r
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_start IS 'GET /job-scheduler/messenger/start of system 002';

CREATE FUNCTION @extschema@.msg_http_002_stop(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN r.done THEN 200 ELSE 400 END, NULL, CASE WHEN r.done THEN @extschema@.msg_http_002_reply(200, 0, NULL, '"succeeded"')
	ELSE @extschema@.msg_http_002_reply(400, 400002, 'messenger job is already stopped', NULL) END
FROM (SELECT @extschema@.msg_pause(NULL, 'by GET /job-scheduler/messenger/stop') AS done) r
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_stop IS 'GET /job-scheduler/messenger/stop of system 002';

CREATE FUNCTION @extschema@.msg_http_002_working(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, @extschema@.msg_http_002_reply(200, 0, NULL, to_json(CASE WHEN @extschema@.msg_running() THEN 'Working' ELSE 'Not Working' END))
$$;
COMMENT ON FUNCTION @extschema@.msg_http_002_working IS 'GET /job-scheduler/messenger/is-working of system 002';

CREATE FUNCTION @extschema@.msg_http_002_toggle(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	CASE request -> 'query' ->> 'command'
		WHEN 'start' THEN status := (@extschema@.msg_http_002_start(request)).status;
		WHEN 'stop' THEN status := (@extschema@.msg_http_002_stop(request)).status;
		ELSE
			status := 400;
			body := @extschema@.msg_http_002_reply(400, 0, 'Invalid command. Use ''start'' or ''stop''.', NULL);
			RETURN;
	END CASE;
	body := CASE status WHEN 200 THEN @extschema@.msg_http_002_reply(200, 0, NULL, '"succeeded"')
		ELSE @extschema@.msg_http_002_reply(status, 0, 'there''s an error occurred!', NULL) END;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_toggle IS 'GET /api/messenger/messenger-job-toggle of system 002';

CREATE FUNCTION @extschema@.msg_http_002_list(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	most bigint := @extschema@.msg_http_number(request, 'limit');
	first bigint := @extschema@.msg_http_number(request, 'offset');
BEGIN
	status := 400;
	IF most IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Limit must be an integer!', NULL);
	ELSIF first IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Offset must be an integer!', NULL);
	ELSE
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL, (SELECT coalesce(json_agg(json_build_object('id', m.id::text, 'to', m.payload ->> 'to', 'content', m.payload ->> 'content',
			'status', CASE WHEN m.status IN ('idle', 'scheduled', 'retry') THEN 'pending' WHEN m.status IN ('sent', 'received', 'delivered') THEN 'sent' ELSE 'invalid' END,
			'sent_at', @extschema@.msg_http_time(coalesce(m.delivered_at, m.sent_at)), 'created_at', @extschema@.msg_http_time(m.created_at)) ORDER BY m.id), '[]')
			FROM (SELECT * FROM @extschema@.messages ORDER BY id LIMIT least(50, greatest(0, most)) OFFSET greatest(0, first)) m));
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_list IS 'GET /api/messenger/ of system 002';

CREATE FUNCTION @extschema@.msg_http_002_two(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	first bigint := @extschema@.msg_http_number(request, 'offset');
BEGIN
	status := 400;
	IF first IS NULL THEN
		body := @extschema@.msg_http_002_reply(400, 0, 'Offset must be an integer!', NULL);
	ELSE
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL, (SELECT coalesce(json_agg(json_build_object('id', m.id::text, 'to', m.payload ->> 'to', 'content', m.payload ->> 'content') ORDER BY m.id), '[]')
			FROM (SELECT * FROM @extschema@.messages o WHERE o.status = 'idle' ORDER BY o.id LIMIT 2 OFFSET greatest(0, first)) m));
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_two IS 'GET /api/messenger/get-two of system 002';

CREATE FUNCTION @extschema@.msg_http_002_commit(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF request ->> 'id' ~ '^[0-9]{1,18}$' AND @extschema@.msg_ack((request ->> 'id')::bigint, 'delivered') THEN
		BEGIN
			PERFORM @extschema@.msg_cache_put(ARRAY[m.id], ARRAY[@extschema@.msg_cache_entry(m)::text]) FROM @extschema@.messages m WHERE m.id = (request ->> 'id')::bigint;
		EXCEPTION WHEN connection_failure OR object_not_in_prerequisite_state THEN
			-- a cache that does not answer, or that there is none of, holds up nothing
			NULL;
		END;
		status := 200;
		body := @extschema@.msg_http_002_reply(200, 0, NULL, '"succeeded"');
	ELSE
		status := 500;
		body := @extschema@.msg_http_002_reply(500, 0, 'Couldn''t commit the message!', NULL);
	END IF;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_002_commit IS 'PUT /api/messenger/commit/{id} of system 002';

/*
 * 003: what the body of a request gives, which must be an object of texts and numbers. Its clients may send all members of one, with Go's zeros for
 * those that they do not mean; only a time_zone of 0 means something. Errors: 22023.
 */
CREATE FUNCTION @extschema@.msg_http_003_body(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	body jsonb := @extschema@.msg_http_body(request);
BEGIN
	IF jsonb_typeof(body) IS DISTINCT FROM 'object' OR EXISTS (SELECT FROM jsonb_each(body) m WHERE jsonb_typeof(m.value) IN ('object', 'array', 'boolean')) THEN
		RAISE invalid_parameter_value USING MESSAGE = 'Bad request, invalid JSON data';
	END IF;
	RETURN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}') FROM jsonb_each(body) m
		WHERE m.value NOT IN ('null', '""', '0', '"0001-01-01T00:00:00Z"') OR m.key = 'time_zone' AND m.value = '0');
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_body IS 'what the body of a request of system 003 gives';

/* 003: the id in a body. Errors: 22023 there is none. */
CREATE FUNCTION @extschema@.msg_http_003_id(body jsonb) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT (body ->> 'id' ~ '^[0-9]{1,18}$') IS TRUE THEN
		RAISE invalid_parameter_value USING MESSAGE = 'id must be a whole number';
	END IF;
	RETURN (body ->> 'id')::bigint;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_id IS 'the id in the body of a request of system 003';

/* 003: {"id", "phone_number", "mobile_operator_code", "tag", "time_zone"}: PUT makes a client, whose id the database gives, PATCH changes what is given, DELETE drops it. */
CREATE FUNCTION @extschema@.msg_http_003_client(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	given jsonb := @extschema@.msg_http_003_body(request);
	-- a number in its eyes, and so without a plus sign
	phone text := regexp_replace(given ->> 'phone_number', '^([0-9]+)$', '+\1');
	code text := given ->> 'mobile_operator_code';
	quarters numeric := given ->> 'time_zone';
	zone text := CASE WHEN quarters < 0 THEN '-' ELSE '+' END || to_char(make_interval(mins => (15 * abs(quarters))::integer), 'HH24:MI');
BEGIN
	IF quarters <> trunc(quarters) OR abs(quarters) > 56 THEN
		RAISE invalid_parameter_value USING MESSAGE = 'time_zone is in quarter-hours from UTC, from -56 to 56';
	END IF;
	status := 204;
	CASE request ->> 'method'
		WHEN 'PUT' THEN
			INSERT INTO @extschema@.msg_clients (phone, operator_code, tag, time_zone) VALUES (phone, code, given ->> 'tag', coalesce(zone, 'UTC'));
			status := 201;
		WHEN 'PATCH' THEN
			PERFORM FROM @extschema@.msg_clients c WHERE c.id = @extschema@.msg_http_003_id(given) FOR UPDATE;
			IF NOT FOUND THEN
				RAISE undefined_object USING MESSAGE = format('client %s does not exist', given ->> 'id');
			END IF;
			PERFORM @extschema@.msg_client_set(phone, code, given ->> 'tag', zone, NULL, @extschema@.msg_http_003_id(given));
		WHEN 'DELETE' THEN
			PERFORM @extschema@.msg_client_drop(@extschema@.msg_http_003_id(given));
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_client IS 'PUT, PATCH and DELETE /v1/client/ of system 003';

/*
 * 003: {"id", "message_text", "mobile_operator_code", "tag", "filter_choice", "datetime_start", "datetime_end", "interval_start", "interval_end"}: PUT plans a
 * mailing through the channel default, PATCH changes what is given, DELETE cancels and forgets it. Of the interval the times of the day count, as they are
 * written: they are by each client's own clock.
 */
CREATE FUNCTION @extschema@.msg_http_003_mailing(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	given jsonb := @extschema@.msg_http_003_body(request);
	choice text := given ->> 'filter_choice';
	-- of two filters the one that was not chosen is none
	codes text[] := CASE WHEN choice = 'tag' THEN '{}' WHEN given ? 'mobile_operator_code' THEN ARRAY[given ->> 'mobile_operator_code'] END;
	tags text[] := CASE WHEN choice = 'code' THEN '{}' WHEN given ? 'tag' THEN ARRAY[given ->> 'tag'] END;
	begins timestamptz := given ->> 'datetime_start';
	ends timestamptz := given ->> 'datetime_end';
	opens time := regexp_replace(given ->> 'interval_start', '^.*[T ]([0-9:.]+).*$', '\1');
	closes time := regexp_replace(given ->> 'interval_end', '^.*[T ]([0-9:.]+).*$', '\1');
BEGIN
	IF choice NOT IN ('tag', 'code') THEN
		RAISE invalid_parameter_value USING MESSAGE = 'filter_choice must be tag or code';
	END IF;
	IF opens = closes THEN
		opens := '00:00';
		closes := '24:00';
	END IF;
	status := 204;
	CASE request ->> 'method'
		WHEN 'PUT' THEN
			IF choice = 'tag' AND tags IS NULL OR choice = 'code' AND codes IS NULL THEN
				RAISE invalid_parameter_value USING MESSAGE = format('filter_choice is %s, and there is none', choice);
			END IF;
			PERFORM @extschema@.msg_mailing_create(given ->> 'message_text', ends, begins, 'default', codes, tags, opens, closes);
			status := 201;
		WHEN 'PATCH' THEN
			PERFORM @extschema@.msg_mailing_update(@extschema@.msg_http_003_id(given), given ->> 'message_text', ends, begins, NULL, codes, tags, opens, closes);
		WHEN 'DELETE' THEN
			PERFORM @extschema@.msg_mailing_delete(@extschema@.msg_http_003_id(given));
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_003_mailing IS 'PUT, PATCH and DELETE /v1/mailing/ of system 003';

/* 003: how many messages of each mailing have come to a good end (its word: succesed), and how many to another; the rest is on its way. */
CREATE FUNCTION @extschema@.msg_http_003_stats(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('mailing_id', g.id, 'datetime_start', @extschema@.msg_http_time(g.starts_at),
	'datetime_end', @extschema@.msg_http_time(g.ends_at), 'succesed', s.good, 'failed', s.ended - s.good) ORDER BY g.id), '[]')::text
FROM @extschema@.msg_mailings g, LATERAL (
	SELECT count(*) AS ended, count(*) FILTER (WHERE m.status IN ('sent', 'received', 'delivered')) AS good
	FROM @extschema@.msg_mailing_links l JOIN @extschema@.messages m ON m.id = l.message_id
	WHERE l.mailing_id = g.id AND m.finished_at IS NOT NULL) s
WHERE g.status <> 'deleting'
$$;
COMMENT ON FUNCTION @extschema@.msg_http_003_stats IS 'GET /v1/mailing/stats of system 003';

/* 003: the messages of the mailing {"id"}, the first 10,000 clients' of them. */
CREATE FUNCTION @extschema@.msg_http_003_messages(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, coalesce(json_agg(json_build_object('id', m.id, 'date_time_creation', @extschema@.msg_http_time(m.created_at), 'try', m.attempts,
	'delivery_status', m.finished_at IS NOT NULL AND m.status IN ('sent', 'received', 'delivered'), 'mailing_id', l.mailing_id, 'client_id', l.client_id)
	ORDER BY l.client_id), '[]')::text
FROM @extschema@.msg_mailing_messages(@extschema@.msg_http_003_id(@extschema@.msg_http_003_body(request)), NULL, 10000) l
JOIN @extschema@.messages m ON m.id = l.message_id
$$;
COMMENT ON FUNCTION @extschema@.msg_http_003_messages IS 'POST /v1/mailing/ of system 003';

/* 004: {"action": "start" | "stop"}. */
CREATE FUNCTION @extschema@.msg_http_004_control(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	given jsonb := @extschema@.msg_http_body(request);
BEGIN
	IF jsonb_typeof(given) IS DISTINCT FROM 'object' OR jsonb_typeof(coalesce(given -> 'action', '""')) <> 'string' THEN
		status := 400;
		body := '{"error":"invalid JSON payload"}';
		RETURN;
	END IF;
	CASE given ->> 'action'
		WHEN 'start' THEN
			PERFORM @extschema@.msg_resume();
			status := 200;
			body := '{"message":"Cron job started"}';
		WHEN 'stop' THEN
			PERFORM @extschema@.msg_pause(NULL, 'by POST /api/v1/cron/control');
			status := 202;
			body := '{"message":"Cron job will be stopped"}';
		ELSE
			status := 400;
			body := '{"error":"action must be ''start'' or ''stop''"}';
	END CASE;
END $$;
COMMENT ON FUNCTION @extschema@.msg_http_004_control IS 'POST /api/v1/cron/control of system 004';

/* 004: what has come to a good end, the newest 10,000 of them; null where there is none, as its clients know it. */
CREATE FUNCTION @extschema@.msg_http_004_sent(request jsonb, OUT status integer, OUT content_type text, OUT body text)
RETURNS record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT 200, NULL, json_build_object('message', 'Messages fetched successfully', 'data', json_agg(json_build_object('ID', m.id::text,
	'Content', coalesce(m.payload ->> 'content', ''), 'PhoneNumber', coalesce(m.payload ->> 'to', ''), 'IsSent', true) ORDER BY m.id))::text
FROM (SELECT * FROM @extschema@.messages s WHERE s.status IN ('sent', 'received', 'delivered') AND s.finished_at IS NOT NULL ORDER BY s.id DESC LIMIT 10000) m
$$;
COMMENT ON FUNCTION @extschema@.msg_http_004_sent IS 'GET /api/v1/list/sent-messages of system 004';

/* msg_openapi_type(type): a type of PostgreSQL as a schema of OpenAPI. */
CREATE FUNCTION @extschema@.msg_openapi_type(type oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE
	WHEN t.typelem <> 0 AND t.typlen = -1 THEN jsonb_build_object('type', 'array', 'items', @extschema@.msg_openapi_type(t.typelem))
	WHEN t.typtype = 'e' THEN jsonb_build_object('type', 'string', 'enum', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
	WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
	WHEN t.oid = 'int8'::regtype THEN '{"type": "integer", "format": "int64"}'
	WHEN t.oid IN ('int2'::regtype, 'int4'::regtype) THEN '{"type": "integer", "format": "int32"}'
	WHEN t.oid IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) THEN '{"type": "number"}'
	WHEN t.oid = 'bool'::regtype THEN '{"type": "boolean"}'
	WHEN t.oid IN ('timestamptz'::regtype, 'timestamp'::regtype) THEN '{"type": "string", "format": "date-time"}'
	WHEN t.oid = 'uuid'::regtype THEN '{"type": "string", "format": "uuid"}'
	WHEN t.typtype = 'c' AND t.typrelid <> 0 THEN jsonb_build_object('$ref', '#/components/schemas/' || t.typname)
	ELSE '{"type": "string"}'
END
FROM pg_type t WHERE t.oid = type
$$;
COMMENT ON FUNCTION @extschema@.msg_openapi_type IS 'a type as a schema of OpenAPI';

/*
 * msg_openapi(): what the HTTP facade serves, as OpenAPI 3.1, from the catalogue and its comments; under webhooks what msgsys sends.
 */
CREATE FUNCTION @extschema@.msg_openapi() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH extension AS (
	SELECT e.oid, e.extversion FROM pg_extension e WHERE e.extname = 'msgsys'
), tables AS (
	SELECT c.oid, c.relname AS name, c.reltype, obj_description(c.oid, 'pg_class') AS about,
		(pg_relation_is_updatable(c.oid, false) & 8) <> 0 AS insertable, (pg_relation_is_updatable(c.oid, false) & 20) = 20 AS updatable
	FROM extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
	JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'msg_webhook_secrets'
), columns AS (
	SELECT t.name AS table_name, a.attname AS name, a.attnum, @extschema@.msg_openapi_type(a.atttypid) AS type, col_description(t.oid, a.attnum) AS about
	FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
), functions AS (
	SELECT p.oid, p.proname AS name, p.provolatile <> 'v' AS reads, p.proretset, p.prorettype, obj_description(p.oid, 'pg_proc') AS about,
		p.pronargs, p.pronargdefaults, p.proargnames, p.proargmodes, p.proargtypes, p.proallargtypes
	FROM extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	-- not what stands behind other systems' routes, which nobody calls by its name
	JOIN pg_proc p ON p.oid = d.objid AND p.prokind = 'f' AND p.proname LIKE 'msg\_%' AND p.proname NOT LIKE 'msg\_http\_%'
		AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype)
), parameters AS (
	SELECT f.oid, a.name, a.n, @extschema@.msg_openapi_type(a.type) AS type, a.n <= f.pronargs - f.pronargdefaults AS required
	FROM functions f, unnest(f.proargtypes::oid[], f.proargnames) WITH ORDINALITY a(type, name, n) WHERE a.n <= f.pronargs
), results AS (
	SELECT f.oid, CASE WHEN f.proretset THEN jsonb_build_object('type', 'array', 'items', r.one) ELSE r.one END AS schema
	FROM functions f, LATERAL (SELECT CASE WHEN f.prorettype = 'record'::regtype THEN jsonb_build_object('type', 'object', 'properties',
			(SELECT jsonb_object_agg(o.name, @extschema@.msg_openapi_type(o.type)) FROM unnest(f.proallargtypes, f.proargnames, f.proargmodes) o(type, name, mode) WHERE o.mode IN ('o', 'b', 't')))
		ELSE @extschema@.msg_openapi_type(f.prorettype) END AS one) r
), answers AS (
	SELECT '{"401": {"$ref": "#/components/responses/error"}, "403": {"$ref": "#/components/responses/error"}, "404": {"$ref": "#/components/responses/error"},
		"400": {"$ref": "#/components/responses/error"}, "503": {"$ref": "#/components/responses/error"}}'::jsonb AS errors
), paths AS (
	SELECT '/' || t.name AS path, jsonb_strip_nulls(jsonb_build_object(
		'get', jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'read_' || t.name, 'summary', t.about,
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'description', coalesce(c.about, c.name) || ' (a filter: operator.value)', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum)
				FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/select"}, {"$ref": "#/components/parameters/order"}, {"$ref": "#/components/parameters/limit"},
				{"$ref": "#/components/parameters/offset"}, {"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'responses', a.errors || jsonb_build_object('200', jsonb_build_object('description', 'rows', 'content', jsonb_build_object('application/json', jsonb_build_object('schema',
				jsonb_build_object('type', 'array', 'items', jsonb_build_object('$ref', '#/components/schemas/' || t.name)))))) || '{"206": {"description": "a part of the rows that were counted"}, "406": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'),
		'post', CASE WHEN t.insertable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'insert_' || t.name, 'summary', 'insert rows',
			'parameters', '[{"$ref": "#/components/parameters/select"}, {"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_build_object('anyOf', jsonb_build_array(
				jsonb_build_object('$ref', '#/components/schemas/' || t.name), jsonb_build_object('type', 'array', 'items', jsonb_build_object('$ref', '#/components/schemas/' || t.name))))))),
			'responses', a.errors || '{"201": {"description": "inserted"}, "200": {"description": "merged"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "413": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END,
		'patch', CASE WHEN t.updatable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'change_' || t.name, 'summary', 'change the rows of a filter',
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum) FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_build_object('$ref', '#/components/schemas/' || t.name)))),
			'responses', a.errors || '{"204": {"description": "changed"}, "200": {"description": "changed, shown"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END,
		'delete', CASE WHEN t.updatable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'delete_' || t.name, 'summary', 'delete the rows of a filter',
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum) FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'responses', a.errors || '{"204": {"description": "deleted"}, "200": {"description": "deleted, shown"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END)) AS item
	FROM tables t, answers a
	UNION ALL
	SELECT '/rpc/' || f.name, jsonb_strip_nulls(jsonb_build_object(
		'post', jsonb_build_object('tags', jsonb_build_array('functions'), 'operationId', f.name, 'summary', f.about,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_strip_nulls(jsonb_build_object('type', 'object',
				'properties', coalesce((SELECT jsonb_object_agg(p.name, p.type) FROM parameters p WHERE p.oid = f.oid), '{}'),
				'required', (SELECT jsonb_agg(p.name ORDER BY p.n) FROM parameters p WHERE p.oid = f.oid AND p.required)))))),
			'responses', a.errors || CASE WHEN f.prorettype = 'void'::regtype THEN '{"204": {"description": "done"}}'::jsonb
				ELSE jsonb_build_object('200', jsonb_build_object('description', 'the result', 'content', jsonb_build_object('application/json', jsonb_build_object('schema', r.schema)))) END
				|| '{"206": {"description": "a part of the rows that were counted"}, "405": {"$ref": "#/components/responses/error"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "413": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb),
		'get', CASE WHEN f.reads THEN jsonb_build_object('tags', jsonb_build_array('functions'), 'operationId', 'get_' || f.name, 'summary', f.about,
			'parameters', coalesce((SELECT jsonb_agg(jsonb_build_object('name', p.name, 'in', 'query', 'required', p.required, 'schema', '{"type": "string"}'::jsonb) ORDER BY p.n)
				FROM parameters p WHERE p.oid = f.oid AND p.name NOT IN ('limit', 'offset')), '[]') || '[{"$ref": "#/components/parameters/limit"}, {"$ref": "#/components/parameters/offset"}]'::jsonb,
			'responses', a.errors || jsonb_build_object('200', jsonb_build_object('description', 'the result', 'content', jsonb_build_object('application/json', jsonb_build_object('schema', r.schema))))
				|| '{"206": {"description": "a part of the rows that were counted"}, "406": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END))
	FROM functions f JOIN results r ON r.oid = f.oid, answers a
	UNION ALL
	VALUES
		('/health/live', '{"get": {"tags": ["operation"], "operationId": "live", "summary": "whether the HTTP worker answers", "security": [], "responses": {"200": {"description": "it does"}}}}'::jsonb),
		('/health/ready', '{"get": {"tags": ["operation"], "operationId": "ready", "summary": "whether all workers can do their work", "security": [], "responses": {"200": {"description": "they can"}, "503": {"description": "one cannot; the body says which"}}}}'),
		('/metrics', '{"get": {"tags": ["operation"], "operationId": "metrics", "summary": "metrics in the text format of Prometheus", "security": [], "responses": {"200": {"description": "metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}}}}')
)
SELECT jsonb_build_object(
	'openapi', '3.1.0',
	'info', jsonb_build_object('title', 'msgsys', 'version', (SELECT extversion FROM extension), 'license', '{"name": "PostgreSQL", "identifier": "PostgreSQL"}'::jsonb,
		'description', 'Tables, views and functions of msgsys in the dialect of PostgREST.'),
	'servers', '[{"url": "/"}]'::jsonb,
	'tags', '[{"name": "tables", "description": "tables and views"}, {"name": "functions", "description": "functions, with named arguments"}, {"name": "operation", "description": "probes and metrics"}]'::jsonb,
	'security', '[{"bearer": []}]'::jsonb,
	'paths', (SELECT jsonb_object_agg(path, item) FROM paths),
	'webhooks', '{"message": {"post": {"operationId": "message", "summary": "a message, as a channel''s webhook gets it; any 2xx takes it", "security": [], "parameters": [
		{"name": "webhook-id", "in": "header", "required": true, "schema": {"type": "string"}, "description": "the same at each attempt"},
		{"name": "webhook-timestamp", "in": "header", "required": true, "schema": {"type": "integer"}},
		{"name": "webhook-signature", "in": "header", "schema": {"type": "string"}, "description": "Standard Webhooks 1.0"}],
		"requestBody": {"content": {"application/json": {"schema": {}}}}, "responses": {"2XX": {"description": "delivered"}, "410": {"description": "disables the webhook"}, "default": {"description": "tried again, or dead"}}}}}'::jsonb,
	'components', jsonb_build_object(
		'securitySchemes', '{"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}'::jsonb,
		'responses', '{"error": {"description": "why not", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}}}'::jsonb,
		'parameters', '{"select": {"name": "select", "in": "query", "schema": {"type": "string"}, "description": "columns, as alias:column->path::type"},
			"order": {"name": "order", "in": "query", "schema": {"type": "string"}, "description": "column.desc.nullslast, and more after commas"},
			"limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0}}, "offset": {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}},
			"prefer": {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "description": "count=exact, return=representation, resolution=merge-duplicates and so on"}}'::jsonb,
		'schemas', (SELECT jsonb_object_agg(c.table_name, jsonb_build_object('type', 'object', 'properties', c.properties)) FROM (
				SELECT c.table_name, jsonb_object_agg(c.name, CASE WHEN c.about IS NULL THEN c.type ELSE c.type || jsonb_build_object('description', c.about) END) AS properties FROM columns c GROUP BY c.table_name) c)
			|| '{"error": {"type": "object", "required": ["code", "message", "details", "hint"], "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "details": {"type": ["string", "null"]}, "hint": {"type": ["string", "null"]}}}}'::jsonb))
$$;
COMMENT ON FUNCTION @extschema@.msg_openapi IS 'what the HTTP facade serves, as OpenAPI 3.1';

-- ---------------------------------------------------------------- rights

/*
 * msg_grant(role, kind): let a role use msgsys as producer (create), consumer (acknowledge, wait), reader (see
 * everything) or operator (all of that, and change channels, pause, cancel, retry), or as worker (for msgsys.role) or http (for
 * msgsys.http_role). A kind adds
 * to what the role has.
 * Errors: 42704 no such role, 22023 no such kind.
 */
CREATE FUNCTION @extschema@.msg_grant(role name, kind text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t constant text := 'ON TABLE @extschema@.';
	rights text[] := ARRAY['USAGE ON SCHEMA @extschema@'];
	functions text[] := '{msg_now}';
	r text;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
		RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', role);
	END IF;
	IF kind NOT IN ('producer', 'consumer', 'reader', 'operator', 'worker', 'http') OR kind IS NULL THEN
		RAISE invalid_parameter_value USING MESSAGE = format('unknown kind of role "%s"', kind),
			HINT = 'One of producer, consumer, reader, operator, worker and http.';
	END IF;
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_create,msg_create_raw,msg_create_many,msg_http_body,msg_http_000_create}'::text[];
		rights := rights || ARRAY[
			'INSERT (channel, message_key, event_type, content_type, headers, payload, body, dedup_key, due_at, expires_at) ' || t || 'messages',
			'SELECT (id, channel, dedup_key, status) ' || t || 'messages'];
	END IF;
	IF kind IN ('consumer', 'operator') THEN
		functions := functions || '{msg_ack,msg_wait}'::text[];
		rights := rights || ARRAY['SELECT (id, status) ' || t || 'messages'];
	END IF;
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_openapi,msg_openapi_type,msg_http_time,msg_http_number,msg_http_000_messages,msg_http_001_sent,msg_http_002_reply,msg_http_002_working,msg_http_002_list,msg_http_002_two,msg_http_004_sent,msg_get,msg_list,msg_wait,msg_cached,msg_cache_get,msg_cache_entry,msg_live,msg_running,msg_worker_slots,msg_stats}'::text[];
		rights := rights || ARRAY['SELECT ' || t || 'messages', 'SELECT ' || t || 'msg_channels', 'SELECT ' || t || 'msg_channel_settings',
			'SELECT ' || t || 'msg_pauses', 'SELECT ' || t || 'msg_pause_log', 'SELECT ' || t || 'msg_paces', 'SELECT ' || t || 'msg_runs', 'SELECT ' || t || 'msg_statistics', 'SELECT ' || t || 'msg_retention', 'SELECT ' || t || 'msg_archive',
			'SELECT ' || t || 'msg_offsets', 'SELECT ' || t || 'msg_installation', 'SELECT ' || t || 'msg_backlog', 'SELECT ' || t || 'msg_workers', 'SELECT ' || t || 'msg_webhooks', 'SELECT ' || t || 'msg_webhook_settings',
			'SELECT ' || t || 'msg_breakers', 'SELECT (id, message_id, channel, attempt, at, milliseconds, class, code) ' || t || 'msg_attempts'];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_create_from_query,msg_known_names,msg_cancel,msg_reschedule,msg_retry,msg_redrive,msg_pace_set,msg_pace_drop,msg_cron,msg_cron_drop,msg_crons,msg_cron_schema,msg_statistics_take,msg_retention_set,msg_retention_drop,msg_purge,msg_purge_step,msg_archive_partition,msg_archive_drop,msg_cache_fill,msg_cache_put,msg_channel_set,msg_channel_drop,msg_pause,msg_resume,msg_adopt,msg_webhook_set,msg_webhook_check,msg_webhook_keep_secret,msg_webhook_enable,msg_webhook_drop,msg_webhook_secret,msg_channel_rotate_secret,msg_test,msg_http_body,msg_http_001_toggle,msg_http_002_start,msg_http_002_stop,msg_http_002_toggle,msg_http_002_commit,msg_http_004_control}'::text[];
		rights := rights || ARRAY['UPDATE, DELETE ' || t || 'messages', 'INSERT, UPDATE, DELETE ' || t || 'msg_channels',
			'INSERT, UPDATE, DELETE ' || t || 'msg_pauses', 'INSERT ' || t || 'msg_pause_log', 'INSERT, UPDATE, DELETE ' || t || 'msg_paces',
			'INSERT, DELETE ' || t || 'msg_statistics', 'INSERT, UPDATE, DELETE ' || t || 'msg_retention', 'INSERT ' || t || 'msg_archive', 'DELETE ' || t || 'msg_attempts',
			'UPDATE ' || t || 'msg_runs', 'UPDATE ' || t || 'msg_installation',
			'SELECT ' || t || 'msg_attempts', 'INSERT, UPDATE, DELETE ' || t || 'msg_webhooks',
			'SELECT (channel), DELETE ' || t || 'msg_webhook_secrets', 'DELETE ' || t || 'msg_breakers'];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_cancel_many,msg_retry_many}'::text[];
	END IF;
	IF kind = 'http' THEN
		functions := functions || '{msg_backlog_sample,msg_openapi,msg_openapi_type}'::text[];
	END IF;
	IF kind = 'worker' THEN
		functions := functions || '{msg_retry_delay,msg_purge_step,msg_archive_partition}'::text[];
		rights := rights || ARRAY['SELECT, UPDATE, DELETE ' || t || 'messages', 'SELECT, UPDATE ' || t || 'msg_channels', 'SELECT ' || t || 'msg_retention',
			'INSERT ' || t || 'msg_archive', 'DELETE ' || t || 'msg_runs', 'SELECT, DELETE ' || t || 'msg_attempts',
			'SELECT ' || t || 'msg_channel_settings', 'SELECT ' || t || 'msg_pauses', 'SELECT, UPDATE ' || t || 'msg_paces',
			'SELECT, INSERT, UPDATE ' || t || 'msg_runs', 'SELECT, INSERT, UPDATE ' || t || 'msg_offsets',
			'SELECT, UPDATE ' || t || 'msg_installation', 'SELECT, UPDATE ' || t || 'msg_webhooks', 'SELECT ' || t || 'msg_webhook_settings',
			'SELECT ' || t || 'msg_webhook_secrets', 'INSERT ' || t || 'msg_attempts', 'SELECT, INSERT, UPDATE, DELETE ' || t || 'msg_breakers'];
	END IF;
	-- fan-out
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_publish,msg_event_matches}'::text[];
		rights := rights || ('SELECT (id, event_type, channel, filter) ' || t || 'msg_subscriptions');
	END IF;
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_event_matches}'::text[];
		rights := rights || ('SELECT ' || t || 'msg_subscriptions');
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_subscribe,msg_unsubscribe}'::text[];
		rights := rights || ('INSERT, DELETE ' || t || 'msg_subscriptions');
	END IF;
	-- Debezium's outbox, samples
	IF kind IN ('producer', 'operator') THEN
		functions := functions || '{msg_sample}'::text[];
		rights := rights || ('INSERT, SELECT (id) ' || t || 'msg_outbox');
	END IF;
	IF kind IN ('reader', 'operator') THEN
		rights := rights || ('SELECT ' || t || 'msg_outbox');
	END IF;
	-- mailings
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_mailing_stats,msg_mailing_messages,msg_daily_report,msg_phone,msg_time_zone,msg_window}'::text[];
		rights := rights || ARRAY['SELECT ' || t || 'msg_clients', 'SELECT ' || t || 'msg_mailings', 'SELECT ' || t || 'msg_mailing_links',
			'SELECT ' || t || 'msg_mailing_log'];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_client_set,msg_client_drop,msg_client_follow,msg_mailing_create,msg_mailing_update,msg_mailing_cancel,msg_mailing_delete,msg_mailing_check}'::text[];
		rights := rights || ARRAY['INSERT, UPDATE, DELETE ' || t || 'msg_clients', 'INSERT, UPDATE, DELETE ' || t || 'msg_mailings',
			'DELETE ' || t || 'msg_mailing_links', 'USAGE ON SEQUENCE @extschema@.msg_clients_id_seq'];
	END IF;
	IF kind = 'worker' THEN
		functions := functions || '{msg_mailings_run,msg_mailing_expand,msg_window}'::text[];
		rights := rights || ARRAY['INSERT ' || t || 'messages', 'SELECT ' || t || 'msg_clients', 'SELECT, UPDATE, DELETE ' || t || 'msg_mailings',
			'SELECT, INSERT, DELETE ' || t || 'msg_mailing_links'];
	END IF;
	IF kind IN ('operator', 'worker') THEN
		functions := functions || '{msg_mailing_follow,msg_mailing_payload,msg_window}'::text[];
	END IF;
	-- system 003's routes
	IF kind IN ('reader', 'operator') THEN
		functions := functions || '{msg_http_body,msg_http_003_body,msg_http_003_id,msg_http_003_stats,msg_http_003_messages}'::text[];
	END IF;
	IF kind = 'operator' THEN
		functions := functions || '{msg_http_003_client,msg_http_003_mailing}'::text[];
	END IF;
	FOREACH r IN ARRAY rights LOOP
		EXECUTE format('GRANT %s TO %I', r, role);
	END LOOP;
	FOR r IN SELECT p.oid::regprocedure::text FROM pg_proc p
		WHERE p.pronamespace = '@extschema@'::regnamespace AND p.proname = ANY (functions)
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', r, role);
	END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.msg_grant IS 'lets a role use msgsys: kind is producer, consumer, reader or operator; worker for msgsys.role, http for msgsys.http_role. A role may have several kinds';

-- Nobody but who was granted it: functions are for PUBLIC by default.
DO $$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = '@extschema@'::pg_catalog.regnamespace AND pg_catalog.starts_with(p.proname, 'msg_')
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
	END LOOP;
END $$;

-- Tells the workers that the extension is there, when this commits; warns where there are none.
CREATE FUNCTION @extschema@.msg_announce() RETURNS void AS 'MODULE_PATHNAME', 'msg_announce' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_announce IS 'wakes the workers of this database; called by the install script';
REVOKE ALL ON FUNCTION @extschema@.msg_announce() FROM PUBLIC;
SELECT @extschema@.msg_announce();
-- A PostgREST that serves this database reads its catalogue again.
NOTIFY pgrst, 'reload schema';
