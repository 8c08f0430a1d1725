-- The first start of a container: the extension, and what the environment says of the channel "default" that is not a setting: its pace
-- and its retries. Times are seconds, or durations such as 2m and 1m30s.
CREATE EXTENSION msgsys;
\set batch `echo "${BATCH_COUNT:-${MESSAGE_FETCH_LIMIT:-${BUFFER_SIZE:-}}}"`
\set every `echo "${INTERVAL:-${CRON_INTERVAL:-${BUFFER_SIZE:+10}}}"`
\set retries `echo "${RETRY_COUNT:-}"`
\set wait `echo "${RETRY_INTERVAL:-}"`

SELECT msg_pace_set('default', coalesce(nullif(:'batch', ''), '2')::integer, coalesce(nullif(:'every', ''), '120')::interval)
WHERE :'batch' <> '' OR :'every' <> '';

SELECT msg_channel_set('default', topic => current_setting('msgsys.kafka_topic'), max_attempts => nullif(:'retries', '')::integer + 1)
WHERE :'retries' <> '';

SELECT msg_webhook_set('default', current_setting('msgsys.webhook_url'), retry_schedule => ARRAY[nullif(:'wait', '')::interval])
WHERE :'wait' <> '' AND current_setting('msgsys.webhook_url') <> '';
