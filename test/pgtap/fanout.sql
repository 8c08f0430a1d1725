-- Subscriptions: which event types match which patterns, filters, and what a publication creates.
CREATE EXTENSION pgtap;
SET client_min_messages = error;
CREATE EXTENSION msgsys;
SELECT no_plan();

-- patterns, as topic exchanges have them
SELECT is(msg_event_matches(p, e), m, format('%s %s %s', p, CASE WHEN m THEN 'matches' ELSE 'does not match' END, e)) FROM (VALUES
	('order', 'order', true), ('order', 'orders', false), ('order', 'order.created', false), ('order.created', 'order.created', true),
	('order.created', 'order.create', false), ('order.*', 'order.created', true), ('order.*', 'order', false), ('order.*', 'order.', true),
	('order.*', 'order.item.added', false), ('order.*.added', 'order.item.added', true), ('*', 'order', true), ('*', 'order.created', false),
	('*.*', 'order.created', true), ('*.created', 'order.created', true), ('*.created', 'order.deleted', false),
	('#', 'order', true), ('#', 'a.b.c.d', true), ('order.#', 'order', true), ('order.#', 'order.item.added', true), ('order.#', 'orders', false),
	('#.added', 'added', true), ('#.added', 'order.item.added', true), ('#.added', 'order.item.added.twice', false),
	('a.#.d', 'a.d', true), ('a.#.d', 'a.b.c.d', true), ('a.#.d', 'a.b.c', false), ('#.b.#', 'a.b.c', true), ('#.b.#', 'b', true), ('#.b.#', 'a.c', false),
	('#.*', 'a', true), ('#.*.#.*', 'a', false), ('#.*.#.*', 'a.b', true), ('a.#.b.#.c', 'a.x.b.b.y.c', true), ('#.a.b', 'a.a.b', true),
	('#.a.b.#.c', 'a.a.b.a.c', true), ('Order', 'order', false), ('o*', 'order', false), ('заказ.*', 'заказ.создан', true)) v(p, e, m);
SELECT is(msg_event_matches(repeat('#.', 60) || 'x', rtrim(repeat('a.', 120), '.')), false, 'many wildcards take no time');

-- what cannot be
SELECT throws_ok(format('SELECT msg_subscribe(%L)', p), '22023', format('invalid pattern of event types "%s"', p), coalesce(p, 'null') || ' is no pattern')
FROM unnest(ARRAY['', '.', 'a.', '.a', 'a..b', 'a*', '**', 'a.b#', E'a\nb', repeat('x', 256)]) p;
SELECT throws_ok($$SELECT msg_subscribe(NULL)$$, '22023');
SELECT throws_ok($$SELECT msg_subscribe('a', 'nowhere')$$, '42704', 'channel "nowhere" does not exist');
SELECT throws_ok($$SELECT msg_subscribe('a', 'default', '$.a ? (@ > $limit)')$$, '22023', 'filter has a variable');
SELECT throws_ok($$SELECT msg_subscribe('a', 'default', '$.a ?')$$, '42601');
SELECT lives_ok($$SELECT msg_unsubscribe(msg_subscribe('a', 'default', '$."x$"."$y" ? (@ == "$z")'))$$, 'a dollar within quotes is no variable');
SELECT throws_ok($$SELECT msg_publish(NULL, '1')$$, '22023');
SELECT throws_ok($$SELECT msg_publish('', '1')$$, '22023');
SELECT throws_ok($$SELECT msg_publish('a', NULL)$$, '22023');
SELECT throws_ok($$SELECT msg_publish('a', '1', headers => '[]')$$, '22023', 'headers must be an object of strings');

-- subscriptions
SELECT (msg_channel_set('a', topic => 'a')).channel, (msg_channel_set('b', topic => 'b')).channel, (msg_channel_set('c', topic => 'c')).channel;
SELECT msg_subscribe('order.*', 'a') AS first \gset
SELECT msg_subscribe('order.created', 'b') AS second \gset
SELECT msg_subscribe('#', 'c', '$.total > 100') AS third \gset
SELECT is(msg_subscribe('order.*', 'a'), :first::bigint, 'a subscription that is there already is the same');
SELECT isnt(msg_subscribe('order.*', 'a', '$.x'), :first::bigint, 'with another filter it is another');
SELECT is(msg_subscribe('order.*', 'a', '$.x'), msg_subscribe('order.*', 'a', '$."x"'), 'two ways to write a filter are one');
SELECT is(count(*), 4::bigint, 'all are listed') FROM msg_subscriptions;
SELECT is(created_by, current_user::text, 'with who made them') FROM msg_subscriptions WHERE id = :first;
SELECT ok(msg_unsubscribe(msg_subscribe('order.*', 'a', '$.x')), 'one is ended');
SELECT ok(NOT msg_unsubscribe(-1), 'one that is not there is not');

-- publishing
SELECT event, messages FROM msg_publish('order.created', '{"total": 101}', 'key', '{"trace": "x"}', deliver_at => now() + interval '1 h') \gset
SELECT bag_eq($$SELECT channel, message_key, event_type, payload, status, headers FROM messages$$,
	format($$SELECT c, 'key' AS k, 'order.created' AS t, '{"total": 101}'::jsonb AS p, 'scheduled'::msg_status AS s, '{"trace": "x", "event-id": "%s"}'::jsonb AS h FROM unnest(ARRAY['a', 'b', 'c']) c$$, :'event'),
	'a message for each subscription that matches, and they share the event''s id');
SELECT is(:'messages'::bigint[], array_agg(id ORDER BY id), 'whose ids are returned') FROM messages;
SELECT is(array_agg(channel ORDER BY id), '{a,b,c}', 'in the order of the subscriptions') FROM messages;
DELETE FROM messages;
SELECT is(messages, '{}', 'no subscription, no message') FROM msg_publish('nothing', '{}');
SELECT isnt(event, NULL, 'but an event') FROM msg_publish('nothing', '{}');
SELECT is(array_length(messages, 1), 1, 'order.* alone') FROM msg_publish('order.deleted', '{"total": 1}');
SELECT event_id FROM (SELECT gen_random_uuid() AS event_id) g \gset
SELECT is(array_length(messages, 1), 3, 'an event with an id of its own') FROM msg_publish('order.created', '{"total": 101}', event_id => :'event_id');
SELECT is(messages, '{}', 'published again creates nothing') FROM msg_publish('order.created', '{"total": 101}', event_id => :'event_id');
SELECT msg_subscribe('*.created', 'a') AS fourth \gset
SELECT is(array_length(messages, 1), 1, 'but for a subscription that was not there') FROM msg_publish('order.created', '{"total": 101}', event_id => :'event_id');
SELECT is(array_length(messages, 1), 4, 'two subscriptions of a channel are two messages') FROM msg_publish('order.created', '{"total": 101}');
BEGIN;
SELECT is(array_length(messages, 1), 4, 'a publication') FROM msg_publish('order.created', '{"total": 101}');
SAVEPOINT s;
SELECT msg_channel_drop('c', discard => true);
SELECT is(count(*), 0::bigint, 'a channel that is dropped has no subscriptions') FROM msg_subscriptions WHERE channel = 'c';
SELECT is(array_length(messages, 1), 3, 'and stops no publication') FROM msg_publish('order.created', '{"total": 101}');
ROLLBACK;

-- filters: truth, existence, errors
DELETE FROM msg_subscriptions;
CREATE FUNCTION pg_temp.passes(filter jsonpath, payload jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	s bigint := msg_subscribe('f', 'a', filter);
	n integer := coalesce(array_length((msg_publish('f', payload)).messages, 1), 0);
BEGIN
	PERFORM msg_unsubscribe(s);
	RETURN n = 1;
END $$;
SELECT is(pg_temp.passes(f::jsonpath, p::jsonb), m, format('%s %s %s', f, CASE WHEN m THEN 'takes' ELSE 'does not take' END, p)) FROM (VALUES
	('$.total > 100', '{"total": 101}', true), ('$.total > 100', '{"total": 100}', false), ('$.total > 100', '{}', false),
	('$.total > 100', '{"total": "many"}', false), ('$ ? (@.total > 100)', '{"total": 101}', true), ('$ ? (@.total > 100)', '{"total": 1}', false),
	('$.items[*] ? (@.n > 1)', '{"items": [{"n": 1}, {"n": 2}]}', true), ('$.items[*] ? (@.n > 1)', '{"items": [{"n": 1}]}', false),
	('$.paid', '{"paid": true}', true), ('$.paid', '{"paid": false}', false), ('$.paid', '{"paid": null}', false), ('$.paid', '{"paid": 0}', true), ('$.paid', '[]', false),
	('exists($.a)', '{"a": null}', true), ('exists($.a)', '{}', false), ('strict $.a', '{}', false), ('strict $.a.b', '{"a": 1}', false),
	('$.a.double() > 1', '{"a": "x"}', false), ('$.a / $.b > 1', '{"a": 1, "b": 0}', false), ('$.a.datetime() > "2024-01-01".datetime()', '{"a": "never"}', false),
	('$.a.datetime() > "2024-01-01T00:00:00+00".datetime()', '{"a": "2025-01-01"}', true), ('$[5]', '[1]', false), ('strict $[5]', '[1]', false),
	('$.name like_regex "^A"', '{"name": "Anna"}', true)) v(f, p, m);

-- many subscriptions
INSERT INTO msg_subscriptions (event_type, channel) SELECT format('shop%s.%s', g % 1000, CASE WHEN g < 1000 THEN '*' ELSE g::text END), 'a' FROM generate_series(0, 9999) g;
ANALYZE msg_subscriptions;
SELECT is(array_length(messages, 1), 2, 'two of 10,000 match') FROM msg_publish('shop7.1007', '{}');
CREATE FUNCTION pg_temp.looked_at(event text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE format($q$EXPLAIN (ANALYZE, FORMAT json) SELECT FROM msg_subscriptions s
		WHERE rtrim(split_part(translate(s.event_type, '#', '*'), '*', 1), '.') = ANY (ARRAY['', 'shop7', %L]) AND msg_event_matches(s.event_type, %L)$q$, event, event) INTO plan;
	RETURN (plan #>> '{0,Plan,Actual Rows}')::numeric + coalesce((plan #>> '{0,Plan,Rows Removed by Filter}')::numeric, 0);
END $$;
SELECT cmp_ok(pg_temp.looked_at('shop7.1007'), '<=', 2::bigint, 'and no others are looked at');
SELECT * FROM finish();
