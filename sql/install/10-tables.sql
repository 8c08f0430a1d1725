-- 10-tables.sql: the begin of the install script, which the Makefile makes of these files in the order of their names: types, the clock, tables and their triggers.
-- Released versions are changed by upgrade scripts.

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION msgsys" to load this file. \quit

-- Only what PostgreSQL itself brings is found by its name alone, also by what this script leaves behind (constraints, index expressions, views, triggers'
-- conditions): CREATE EXTENSION would look in the extension's schema too, where others may have made an operator that fits better.
SET LOCAL search_path = pg_catalog, pg_temp;

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

/* msg_epoch(): the epoch of messages that are created now; see msg_names. Begins one where there is none yet on this timeline. Errors: 25006 on a standby. */
CREATE FUNCTION @extschema@.msg_epoch() RETURNS integer
AS 'MODULE_PATHNAME', 'msg_epoch' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.msg_epoch IS 'the epoch of messages that are created now: the default of the column epoch';

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
	-- A default and no trigger: rows that come from elsewhere bring theirs, whatever fires there.
	epoch			integer NOT NULL DEFAULT @extschema@.msg_epoch()
	-- The trigger checks what a message holds: a constraint costs each INSERT and each worker's UPDATE.
) WITH (
	-- Dead rows must go while their index entries are few, whatever the size of the table.
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
	autovacuum_vacuum_cost_delay = 0
);

COMMENT ON TABLE @extschema@.messages IS 'the outbox: one row a message, from its creation to its end; a plain INSERT or COPY is as good as msg_create()';
COMMENT ON COLUMN @extschema@.messages.id IS 'given by the database; together with the uuid of its epoch it names the message everywhere (header ce_id)';
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

COMMENT ON COLUMN @extschema@.messages.epoch IS 'which row of msg_names gave it its name: it keeps that for ever, and what another installation created is not sent from here';

-- Only what is live is indexed: besides these, the primary key and the deduplication key.
CREATE INDEX messages_idle ON @extschema@.messages (channel, id) WHERE status = 'idle';
CREATE INDEX messages_due ON @extschema@.messages (channel, due_at, id) WHERE status IN ('scheduled', 'retry');
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
	CONSTRAINT msg_webhooks_retry CHECK (retry_after_max >= '0'),
	-- workers keep all webhooks' settings in memory, and make each request of them; endpoints take no headers as large
	CONSTRAINT msg_webhooks_sizes CHECK (octet_length(url) <= 8192 AND octet_length(proxy) <= 8192 AND octet_length(ca_file) <= 4096 AND octet_length(disabled_reason) <= 8192
		AND octet_length(headers::text) <= 65536 AND octet_length(body_template::text) <= 1048576
		AND cardinality(success_codes) <= 1000 AND cardinality(retry_codes) <= 1000 AND cardinality(retry_schedule) <= 1000)
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
	CONSTRAINT msg_webhook_secrets_kind CHECK (kind IN ('signing', 'header', 'bearer', 'basic', 'client_cert', 'client_key')),
	CONSTRAINT msg_webhook_secrets_sizes CHECK (octet_length(name) <= 256 AND octet_length(value) <= 65536)
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
	low				bigint,
	high			bigint,
	looked_at		timestamptz,
	gap_from		bigint,
	gap_to			bigint,
	gap_at			timestamptz,
	updated_at		timestamptz NOT NULL DEFAULT pg_catalog.now(),
	PRIMARY KEY (topic, "partition")
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.msg_offsets IS 'how far the receiver has read, kept in the transaction that marks the messages; Kafka''s own committed offsets follow it';
COMMENT ON COLUMN @extschema@.msg_offsets.topic IS 'Kafka topic';
COMMENT ON COLUMN @extschema@.msg_offsets."partition" IS 'partition of it';
COMMENT ON COLUMN @extschema@.msg_offsets.next_offset IS 'the next offset to read';
COMMENT ON COLUMN @extschema@.msg_offsets.record_time IS 'the timestamp of the record before it: where Kafka has another record there, or none, the topic is another one of that name and is read from its beginning';
COMMENT ON COLUMN @extschema@.msg_offsets.low IS 'the first offset that Kafka had at looked_at; null: not known, or there was no such partition';
COMMENT ON COLUMN @extschema@.msg_offsets.high IS 'the offset after the last one then; null with a looked_at: there was no such partition';
COMMENT ON COLUMN @extschema@.msg_offsets.looked_at IS 'when a receiver saw these last, as far as it is written: at changes, at most about once a second, and once a minute';
COMMENT ON COLUMN @extschema@.msg_offsets.gap_from IS 'first offset of the latest gap: records that Kafka''s retention removed before they were read, or that cannot be decompressed';
COMMENT ON COLUMN @extschema@.msg_offsets.gap_to IS 'the offset after that gap';
COMMENT ON COLUMN @extschema@.msg_offsets.gap_at IS 'when it was found';
COMMENT ON COLUMN @extschema@.msg_offsets.updated_at IS 'when it moved last';

-- Dumped, so that restored messages keep their names. What is of this database is found by system_identifier, database_oid and identity.
CREATE TABLE @extschema@.msg_names (
	epoch			integer PRIMARY KEY,
	uuid			uuid NOT NULL UNIQUE DEFAULT pg_catalog.gen_random_uuid(),
	stamp_key		bytea NOT NULL,
	system_identifier bigint NOT NULL,
	database_oid	oid NOT NULL,
	identity		text NOT NULL,
	timeline		integer NOT NULL,
	place			text NOT NULL,
	host			text NOT NULL,
	ordinal			integer NOT NULL,
	first_id		bigint,
	last_id			bigint,
	began_at		timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	ended_at		timestamptz,
	held_at			timestamptz,
	adopted_at		timestamptz,
	theirs			boolean NOT NULL DEFAULT false,
	lost_records	bigint NOT NULL DEFAULT 0,
	lost_last_at	timestamptz
);
COMMENT ON TABLE @extschema@.msg_names IS 'the first parts of messages'' names: a row an epoch. One begins where ids may have been given before: on another timeline (a promotion, a restore in time), in another database or data directory, after TRUNCATE, where the sequence was set back, and for each transaction that gives ids itself';
COMMENT ON COLUMN @extschema@.msg_names.epoch IS 'a random number, in the column epoch of messages';
COMMENT ON COLUMN @extschema@.msg_names.uuid IS 'a message''s name is this, a colon, and its id (header ce_id)';
COMMENT ON COLUMN @extschema@.msg_names.stamp_key IS 'secret of the header msgsys-stamp; msg_grant() shows it to no one';
COMMENT ON COLUMN @extschema@.msg_names.system_identifier IS 'of the server where it began, or was adopted';
COMMENT ON COLUMN @extschema@.msg_names.database_oid IS 'of the database where it began, or was adopted';
COMMENT ON COLUMN @extschema@.msg_names.identity IS 'msgsys.identity as it was then';
COMMENT ON COLUMN @extschema@.msg_names.timeline IS 'timeline of the server where it began';
COMMENT ON COLUMN @extschema@.msg_names.place IS 'which data directory that was: the number of its inode';
COMMENT ON COLUMN @extschema@.msg_names.host IS 'where it was last: another host is a warning and no more';
COMMENT ON COLUMN @extschema@.msg_names.ordinal IS 'the latest is the highest';
COMMENT ON COLUMN @extschema@.msg_names.first_id IS 'its ids come from the sequence, from this one on; null: they were given';
COMMENT ON COLUMN @extschema@.msg_names.last_id IS 'its highest id that retention took out of messages';
COMMENT ON COLUMN @extschema@.msg_names.began_at IS 'when it began';
COMMENT ON COLUMN @extschema@.msg_names.ended_at IS 'since when no message is created in it; null also where a later one took its place';
COMMENT ON COLUMN @extschema@.msg_names.held_at IS 'since when nothing is sent, because this is a copy, or messages of another installation were restored; until msg_adopt()';
COMMENT ON COLUMN @extschema@.msg_names.adopted_at IS 'when msg_adopt() was called';
COMMENT ON COLUMN @extschema@.msg_names.theirs IS 'it is another installation''s, as msg_adopt(''lives'') was told';
COMMENT ON COLUMN @extschema@.msg_names.lost_records IS 'records that Kafka has under this name and that no row stands for any more: the tail that a failover or a restore lost';
COMMENT ON COLUMN @extschema@.msg_names.lost_last_at IS 'when the latest of them was read';

-- A view, since a publication of all tables would have the row of a subscriber in its way.
CREATE VIEW @extschema@.msg_installation AS
SELECT n.uuid, n.epoch, n.system_identifier, n.database_oid, n.identity, n.timeline, n.began_at AS installed_at, n.held_at AS restored_at, n.adopted_at
FROM @extschema@.msg_names n
WHERE n.ended_at IS NULL
ORDER BY n.system_identifier OPERATOR(pg_catalog.=) (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)
	AND n.database_oid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
	AND n.identity OPERATOR(pg_catalog.=) coalesce(pg_catalog.current_setting('msgsys.identity', true), '') AND NOT n.theirs DESC, n.ordinal DESC, n.epoch
LIMIT 1;
COMMENT ON VIEW @extschema@.msg_installation IS 'who we are: the row of msg_names that names new messages. Where none is of this server and database they are a copy, and nothing is sent until msg_adopt()';
COMMENT ON COLUMN @extschema@.msg_installation.installed_at IS 'when this name began';
COMMENT ON COLUMN @extschema@.msg_installation.restored_at IS 'since when nothing is sent, until msg_adopt()';

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

SELECT pg_catalog.pg_extension_config_dump('@extschema@.msg_names', '');

-- ---------------------------------------------------------------- triggers

CREATE FUNCTION @extschema@.msg_message_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_message_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_message_trigger() IS 'checks a message that is inserted or changed, and wakes the workers when that commits';

-- The names make them the last triggers of their kind: what they note is what is stored.
CREATE TRIGGER zz_msgsys_insert BEFORE INSERT ON @extschema@.messages
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_message_trigger();
-- What has a deduplication key may become no row; only one that is there counts as waiting.
CREATE TRIGGER zz_msgsys_insert_dedup AFTER INSERT ON @extschema@.messages FOR EACH ROW
	WHEN (NEW.dedup_key IS NOT NULL AND NEW.status = 'idle') EXECUTE FUNCTION @extschema@.msg_message_trigger();
-- AFTER, because a BEFORE UPDATE trigger would make each worker's UPDATE lock each row again, even where it
-- does not fire (workers run as replicas).
CREATE TRIGGER zz_msgsys_update AFTER UPDATE ON @extschema@.messages FOR EACH ROW
	WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.channel IS DISTINCT FROM NEW.channel OR OLD.due_at IS DISTINCT FROM NEW.due_at
		OR OLD.id IS DISTINCT FROM NEW.id OR OLD.created_at IS DISTINCT FROM NEW.created_at)
	EXECUTE FUNCTION @extschema@.msg_message_trigger();

CREATE FUNCTION @extschema@.msg_truncate_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_truncate_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_truncate_trigger() IS 'gives messages names with a new uuid, since their ids may come again';
CREATE TRIGGER zz_msgsys_truncate AFTER TRUNCATE ON @extschema@.messages
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_truncate_trigger();

CREATE FUNCTION @extschema@.msg_content_trigger() RETURNS trigger
AS 'MODULE_PATHNAME', 'msg_content_trigger' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.msg_content_trigger() IS 'checks what a message holds where that is changed, as when it is created';
CREATE TRIGGER zz_msgsys_content AFTER UPDATE OF message_key, event_type, content_type, headers, payload, body ON @extschema@.messages
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_content_trigger();

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
-- Not where only counters change.
CREATE TRIGGER zz_msgsys_config AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF uuid, stamp_key, system_identifier, database_oid, identity, ended_at, held_at, theirs
	ON @extschema@.msg_names FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.msg_config_trigger();

-- What arrives by logical replication fires row triggers only, and only those that say so: a subscriber's workers are to know of it too.
-- (Workers run as replicas as well: what they write themselves must not fire these.)
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE OR UPDATE ON @extschema@.msg_channels
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_channels ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE OR UPDATE ON @extschema@.msg_webhooks
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_webhooks ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE OR UPDATE ON @extschema@.msg_webhook_secrets
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_webhook_secrets ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE OR UPDATE ON @extschema@.msg_pauses
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_pauses ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE ON @extschema@.msg_names
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_names ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE ON @extschema@.msg_paces
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_paces ENABLE REPLICA TRIGGER zz_msgsys_replica;
CREATE TRIGGER zz_msgsys_replica_update AFTER UPDATE ON @extschema@.msg_paces FOR EACH ROW
	WHEN (OLD.batch OPERATOR(pg_catalog.<>) NEW.batch OR OLD.every OPERATOR(pg_catalog.<>) NEW.every)
	EXECUTE FUNCTION @extschema@.msg_config_trigger();
ALTER TABLE @extschema@.msg_paces ENABLE REPLICA TRIGGER zz_msgsys_replica_update;
CREATE TRIGGER zz_msgsys_replica AFTER INSERT OR DELETE OR UPDATE ON @extschema@.msg_retention
	FOR EACH ROW EXECUTE FUNCTION @extschema@.msg_schedule_trigger();
ALTER TABLE @extschema@.msg_retention ENABLE REPLICA TRIGGER zz_msgsys_replica;

-- Rows of these are changed or deleted, and have no key.
ALTER TABLE @extschema@.msg_statistics REPLICA IDENTITY FULL;
ALTER TABLE @extschema@.msg_archive REPLICA IDENTITY FULL;

-- The first name.
SELECT @extschema@.msg_epoch();
