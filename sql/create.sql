-- Creating messages: by function, by INSERT, by COPY; deduplication; what is created where.
SELECT msg_create('{"a": 1}') AS id \gset
SELECT channel, status, attempts, payload, body, created_at = now() AS now FROM messages WHERE id = :id;
SELECT (msg_channel_set('orders', topic => 'orders')).channel;

-- every parameter arrives in its column
SELECT msg_create('{"b": 2}', 'orders', 'k', 'order.created', '{"h": "v"}', 'd1', now() + interval '1 day',
	now() + interval '2 days', 'application/vnd.x+json') AS id \gset
SELECT channel, status, message_key, event_type, headers, dedup_key, due_at > now() AS later, expires_at > due_at AS ends,
	content_type, payload FROM messages WHERE id = :id;
SELECT msg_create_raw('\x00ff', 'orders', content_type => 'image/png') AS raw \gset
SELECT payload, body, content_type FROM messages WHERE id = :raw;

-- the same dedup_key in a channel is the same message, in another channel another one
SELECT msg_create('{"b": 3}', 'orders', dedup_key => 'd1') = :id AS same;
SELECT msg_create_raw('\x01', 'orders', dedup_key => 'd1') = :id AS same;
SELECT msg_create('{"b": 3}', dedup_key => 'd1') = :id AS same;
INSERT INTO messages (channel, payload, dedup_key) VALUES ('orders', '1', 'd1');

-- many at once, in order; a name twice is one message
SELECT array_agg(id ORDER BY n) AS ids FROM msg_create_many('[{"payload": 1}, {"payload": "x", "channel": "orders"}, {"payload": [3]}]')
	WITH ORDINALITY m(id, n) \gset
SELECT array_agg(payload ORDER BY array_position(:'ids'::bigint[], id)) FROM messages WHERE id = ANY (:'ids'::bigint[]);
SELECT count(*), count(DISTINCT id) FROM msg_create_many('[{"payload": 1, "dedup_key": "m"}, {"payload": 2, "dedup_key": "m"}, {"payload": 3}]') id;
SELECT count(*) FROM msg_create_many('[]');
SELECT * FROM msg_create_many('{"payload": 1}');
SELECT * FROM msg_create_many('[1]');
SELECT * FROM msg_create_many('[{"payload": 1}, {"paylod": 2}]');
SELECT * FROM msg_create_many(NULL);
-- all or none
SELECT count(*) AS before FROM messages \gset
SELECT * FROM msg_create_many('[{"payload": 1}, {"payload": 2, "channel": "nowhere"}]');
SELECT count(*) = :before AS unchanged FROM messages;

-- a plain INSERT and COPY are as good
INSERT INTO messages (payload) VALUES ('{"c": 3}') RETURNING status, channel;
INSERT INTO messages (payload, due_at) VALUES ('1', now() + interval '1 h'), ('2', now() - interval '1 h') RETURNING payload, status;
COPY messages (channel, payload, message_key) FROM STDIN;
orders	{"copied": 1}	k1
orders	{"copied": 2}	k1
\.
SELECT status, message_key, payload FROM messages WHERE payload ? 'copied' ORDER BY id;
COPY messages (channel, payload) FROM STDIN;
nowhere	{"copied": 3}
\.
BEGIN;
SELECT msg_create('{"rolled": "back"}') > 0 AS created;
ROLLBACK;
SELECT count(*) FROM messages WHERE payload ? 'rolled';

-- what a dump holds is taken as it is: it brings its epoch
SELECT epoch FROM msg_installation \gset
INSERT INTO messages (id, created_at, channel, status, payload, expires_at, epoch) OVERRIDING SYSTEM VALUE
	VALUES (1000000, '2020-01-01', 'gone', 'idle', '1', '2020-01-02', :epoch), (1000001, '2020-01-01', 'gone', 'delivered', '1', NULL, :epoch)
	RETURNING id, status;
DELETE FROM messages WHERE channel = 'gone';

-- prepared statements, and a function that is called often
PREPARE c(jsonb) AS SELECT msg_create($1) > 0 AS ok;
EXECUTE c('1');
EXECUTE c('2');
SELECT bool_and(msg_create(to_jsonb(g), 'orders') > 0) FROM generate_series(1, 20) g;

-- above READ COMMITTED
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT msg_create('1', 'orders', dedup_key => 'rr') = msg_create('2', 'orders', dedup_key => 'rr') AS same;
COMMIT;

-- a user's trigger that does not want a message
CREATE FUNCTION unwanted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER unwanted BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION unwanted();
SELECT msg_create('1') IS NULL AS create_is_null, msg_create_raw('\x01') IS NULL AS raw_is_null, msg_create('1', dedup_key => 'unwanted') IS NULL AS once_is_null;
DROP TRIGGER unwanted ON messages;
DROP FUNCTION unwanted;

-- samples: prices as a shop writes them
BEGIN;
SELECT msg_sample(100, channel => 'orders');
SELECT count(*) FILTER (WHERE payload ->> 'total' ~ '^\d+\.\d\d$' AND payload #>> '{items,0,price}' ~ '^\d+\.\d\d$') AS prices
	FROM messages WHERE message_key ~ '^customer-';
ROLLBACK;
