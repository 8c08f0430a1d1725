-- Acknowledging, cancelling and retrying by SQL.
SELECT (msg_channel_set('a', topic => 'a', ack => 'topic', max_attempts => 2, retry_base => '1 h', retry_max => '1 h')).channel;
-- what the relay would have made of it
CREATE FUNCTION pg_temp.sent(attempt integer DEFAULT 1) RETURNS bigint LANGUAGE sql AS $$
INSERT INTO messages (created_at, channel, status, sent_at, attempts, payload) VALUES ('2020-01-01', 'a', 'sent', now(), attempt, '1') RETURNING id
$$;
CREATE FUNCTION pg_temp.show(i bigint) RETURNS text LANGUAGE sql AS $$
SELECT concat_ws(' ', status, CASE WHEN received_at IS NOT NULL THEN 'received_at' END, CASE WHEN delivered_at IS NOT NULL THEN 'delivered_at' END,
	CASE WHEN finished_at IS NOT NULL THEN 'finished' END, CASE WHEN due_at > now() THEN 'due later' END, last_error) FROM messages WHERE id = i
$$;
SELECT pg_temp.sent() AS id \gset
SELECT msg_ack(:id), pg_temp.show(:id);
SELECT msg_ack(:id), pg_temp.show(:id);
SELECT msg_ack(:id, 'delivered'), pg_temp.show(:id);
-- late words change nothing
SELECT msg_ack(:id, 'received') AS late, msg_ack(:id, 'failed') AS later, pg_temp.show(:id);
SELECT pg_temp.sent() AS id \gset
SELECT msg_ack(:id, 'failed', 'stale', 7) AS other_attempt, pg_temp.show(:id);
SELECT msg_ack(:id, 'failed', 'no stock', 1), pg_temp.show(:id);
SELECT msg_ack(:id, 'failed', 'again') AS not_sent, pg_temp.show(:id);
SELECT msg_cancel(:id), pg_temp.show(:id);
SELECT pg_temp.sent(2) AS id \gset
SELECT msg_ack(:id, 'failed', 'the last'), pg_temp.show(:id);
SELECT msg_retry(:id), pg_temp.show(:id), attempts, status, due_at <= clock_timestamp() AS due FROM messages WHERE id = :id;
SELECT msg_retry(:id) AS not_dead;
-- received can fail too, and an idle one that was never marked sent can be received
SELECT pg_temp.sent() AS id \gset
SELECT msg_ack(:id), msg_ack(:id, 'failed', 'later'), pg_temp.show(:id);
SELECT msg_create('1', 'a') AS id \gset
SELECT msg_ack(:id, 'failed') AS too_early, msg_ack(:id), pg_temp.show(:id);
SELECT msg_ack(-1), msg_ack(NULL) IS NULL AS null, msg_ack(:id, NULL) IS NULL AS null;

-- cancelling
SELECT msg_create('1', 'a') AS id \gset
SELECT msg_cancel(:id), msg_cancel(:id) AS again, pg_temp.show(:id);
SELECT msg_create('1', 'a', deliver_at => now() + interval '1 h') AS id \gset
SELECT msg_cancel(:id), status FROM messages WHERE id = :id;
SELECT pg_temp.sent() AS id \gset
SELECT msg_cancel(:id) AS too_late, msg_cancel(-1) AS none;

-- the wait before a retry: between 0 and base * 2^(n-1), at most max
SELECT n, bool_and(d >= '0' AND d <= least(interval '1 min', interval '1 s' * 2 ^ (n - 1))) AS within, max(d) > min(d) AS random
FROM generate_series(1, 10) n, LATERAL (SELECT msg_retry_delay('1 s', '1 min', n) AS d FROM generate_series(1, 50) WHERE n > 0) x GROUP BY n ORDER BY n;
SELECT msg_retry_delay('1 s', '1 h', 1000) <= '1 h' AS bounded, msg_retry_delay('1 s', '1 h', 0) <= '1 s' AS first;
-- whatever base and longest wait are, up to 1000 attempts
SELECT count(*) AS wrong FROM unnest('{1 us,5 s,24 h,30 days,10 years,170000000 years}'::interval[]) b, unnest('{1 us,24 h,30 days,170000000 years}'::interval[]) m,
	unnest('{-2147483648,-1,0,1,2,28,31,63,64,999,1000,2147483647}'::integer[]) n, LATERAL (SELECT msg_retry_delay(b, m, n) AS d WHERE n IS NOT NULL) x
WHERE d < '0' OR d > least(m, interval '36525 days') OR now() + d IS NULL;
