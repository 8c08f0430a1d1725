-- The first start of a container: the extension, and what the environment says of the channel "default" that is not a setting: its pace
-- and its retries. Times are seconds, or durations such as 2m and 1m30s. With HTTP_LISTEN also the role of the HTTP workers, and a role of each kind
-- that tokens may name.
CREATE EXTENSION msgsys;
\set batch `echo "${BATCH_COUNT:-${MESSAGE_FETCH_LIMIT:-${BUFFER_SIZE:-}}}"`
\set every `echo "${INTERVAL:-${CRON_INTERVAL:-${BUFFER_SIZE:+10}}}"`
\set retries `echo "${RETRY_COUNT:-}"`
\set wait `echo "${RETRY_INTERVAL:-}"`
\set http `echo "${HTTP_LISTEN:-}"`

SELECT msg_pace_set('default', coalesce(nullif(:'batch', ''), '2')::integer, coalesce(nullif(:'every', ''), '120')::interval)
WHERE :'batch' <> '' OR :'every' <> '';

SELECT msg_channel_set('default', topic => current_setting('msgsys.kafka_topic'), max_attempts => nullif(:'retries', '')::integer + 1)
WHERE :'retries' <> '';

SELECT msg_webhook_set('default', current_setting('msgsys.webhook_url'), retry_schedule => ARRAY[nullif(:'wait', '')::interval])
WHERE :'wait' <> '' AND current_setting('msgsys.webhook_url') <> '';

SELECT :'http' <> '' AS http \gset
\if :http
CREATE ROLE msgsys_web LOGIN NOINHERIT;
SELECT msg_grant('msgsys_web', 'http');
CREATE ROLE msgsys_producer;
CREATE ROLE msgsys_consumer;
CREATE ROLE msgsys_reader;
CREATE ROLE msgsys_operator;
SELECT msg_grant('msgsys_' || kind, kind) FROM unnest('{producer,consumer,reader,operator}'::text[]) kind;
GRANT msgsys_producer, msgsys_consumer, msgsys_reader, msgsys_operator TO msgsys_web;
\endif
