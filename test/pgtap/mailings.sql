-- Clients, windows of the day by their own clocks, and mailings, by a clock that the test sets. No worker is in this database: the test does the
-- scheduler's work by msg_mailings_run(), piece by piece.
-- expect mailing-link sequence: mailings are deleted by hand, and a client has an id of its own choice
CREATE EXTENSION pgtap;
SET client_min_messages = error;
CREATE EXTENSION msgsys;
SET timezone = 'UTC';
SELECT no_plan();

-- ---------------------------------------------------------------- clients
SELECT is(msg_phone(p), n, p || ' is ' || n) FROM (VALUES ('79161234567', '+79161234567'), ('+7 (916) 123-45-67', '+79161234567'), ('+49 151.1234567', '+491511234567'),
	('+1234567', '+1234567'), ('+123456789012345', '+123456789012345')) v(p, n);
SELECT throws_ok(format('SELECT msg_phone(%L)', p), '22023', format('invalid phone number "%s"', p), p || ' is no phone number')
FROM unnest(ARRAY['', '+', '123', '+123456', '+1234567890123456', '89161234567', '9161234567', '791612345678', '7916123456', '+0123456789', '00491511234567',
	'+7916123456x', '7+9161234567', '++79161234567', '+7916１234567', repeat('7', 1000)]) p;
SELECT is(msg_time_zone(z), n, z || ' is ' || n) FROM (VALUES ('Europe/Moscow', 'Europe/Moscow'), ('europe/moscow', 'Europe/Moscow'), ('+3', '+03:00'), ('-0330', '-03:30'),
	('UTC+5:45', '+05:45'), ('gmt-11', '-11:00'), ('Z', '+00:00'), ('-0', '+00:00'), ('utc', 'UTC'), ('Etc/GMT+5', 'Etc/GMT+5'), ('+14:00', '+14:00')) v(z, n);
SELECT throws_ok(format('SELECT msg_time_zone(%L)', z), '22023', format('invalid time zone "%s"', z), z || ' is no time zone')
FROM unnest(ARRAY['', 'Nowhere', 'Europe/Nowhere', 'MSK', 'MSK-3', 'Foo/Bar3', 'EST5EDT', '<+03>-3', '+14:01', '+15', '+3:5', '+3:60', '+123', '3', 'UTC+', repeat('x', 300)]) z;

SELECT is((c.id > 0, c.phone, c.operator_code, c.tag, c.time_zone, c.attributes)::text, '(t,+79161234567,916,vip,Europe/Moscow,"{""name"": ""Anna""}")', 'a client')
FROM msg_client_set('79161234567', tag => 'vip', time_zone => 'europe/moscow', attributes => '{"name": "Anna"}') c;
SELECT id AS anna FROM msg_clients \gset
SELECT is((c.id, c.tag, c.time_zone, c.attributes ->> 'name')::text, format('(%s,vip,+03:00,Anna)', :'anna'), 'is changed, found by the phone') FROM msg_client_set('+7 916 1234567', time_zone => '+3') c;
SELECT is((c.phone, c.operator_code)::text, '(+79031234567,903)', 'another number has another operator') FROM msg_client_set('79031234567', id => :anna) c;
SELECT is(c.operator_code, 'MVNO', 'unless one is given') FROM msg_client_set(operator_code => 'MVNO', id => :anna) c;
SELECT is(c.operator_code, 'MVNO', 'which then stays') FROM msg_client_set('79041234567', id => :anna) c;
SELECT is((c.operator_code, c.tag)::text, '(904,)', 'until it is taken away, as a tag can be') FROM msg_client_set(operator_code => '', tag => '', id => :anna) c;
SELECT is((c.id, c.operator_code, c.time_zone)::text, '(4711,,UTC)', 'an id of one''s own; no operator known') FROM msg_client_set('+491511234567', id => 4711) c;
SELECT throws_ok($$SELECT msg_client_set('+491511234567', id => 1000)$$, '23505', NULL, 'a phone is one client''s');
SELECT throws_ok($$SELECT msg_client_set(tag => 'x')$$, '23502', NULL, 'a client has a phone');
SELECT throws_ok($$SELECT msg_client_set('79161111111', time_zone => 'Moscow')$$, '22023');
SELECT throws_ok($$SELECT msg_client_set('79161111111', attributes => '[]')$$, '23514');
SELECT throws_ok($$INSERT INTO msg_clients (phone) VALUES ('123')$$, '22023', NULL, 'a plain INSERT is checked too');
INSERT INTO msg_clients (phone, time_zone) VALUES ('79162222222', 'asia/tokyo');
SELECT is((phone, operator_code, time_zone)::text, '(+79162222222,916,Asia/Tokyo)', 'and brought into form') FROM msg_clients ORDER BY created_at DESC, id LIMIT 1;
SELECT ok(msg_client_drop(4711), 'dropped');
SELECT ok(NOT msg_client_drop(4711), 'only once');
DELETE FROM msg_clients;

-- ---------------------------------------------------------------- windows
SELECT is(msg_window(z, f, t, a), tstzrange(o, c), format('%s to %s in %s at %s', f, t, z, a)) FROM (VALUES
	-- before, at the beginning, within, at the end
	('Europe/Berlin', time '09:00', time '21:00', timestamptz '2026-01-15 05:00Z', timestamptz '2026-01-15 08:00Z', timestamptz '2026-01-15 20:00Z'),
	('Europe/Berlin', '09:00', '21:00', '2026-01-15 08:00Z', '2026-01-15 08:00Z', '2026-01-15 20:00Z'),
	('Europe/Berlin', '09:00', '21:00', '2026-01-15 19:59:59.999999Z', '2026-01-15 08:00Z', '2026-01-15 20:00Z'),
	('Europe/Berlin', '09:00', '21:00', '2026-01-15 20:00Z', '2026-01-16 08:00Z', '2026-01-16 20:00Z'),
	('Europe/Berlin', '09:00', '21:00', '2026-07-15 05:00Z', '2026-07-15 07:00Z', '2026-07-15 19:00Z'),
	-- over midnight
	('Europe/Berlin', '22:00', '06:00', '2026-01-15 00:00Z', '2026-01-14 21:00Z', '2026-01-15 05:00Z'),
	('Europe/Berlin', '22:00', '06:00', '2026-01-15 12:00Z', '2026-01-15 21:00Z', '2026-01-16 05:00Z'),
	('Europe/Berlin', '22:00', '00:00', '2026-01-15 22:30Z', '2026-01-15 21:00Z', '2026-01-15 23:00Z'),
	('Europe/Berlin', '00:00', '24:00', '2026-01-15 22:30Z', '2026-01-14 23:00Z', '2026-01-15 23:00Z'),
	('Europe/Berlin', '09:00:00.5', '09:00:01.25', '2026-01-15 05:00Z', '2026-01-15 08:00:00.5Z', '2026-01-15 08:00:01.25Z'),
	-- clocks are put forward: 02:00 to 03:00 does not come
	('Europe/Berlin', '01:00', '05:00', '2026-03-28 23:00Z', '2026-03-29 00:00Z', '2026-03-29 03:00Z'),
	('Europe/Berlin', '02:10', '02:50', '2026-03-28 23:00Z', '2026-03-30 00:10Z', '2026-03-30 00:50Z'),
	('Europe/Berlin', '02:30', '04:00', '2026-03-28 23:00Z', '2026-03-29 01:00Z', '2026-03-29 02:00Z'),
	('Europe/Berlin', '01:30', '02:30', '2026-03-28 23:00Z', '2026-03-29 00:30Z', '2026-03-29 01:00Z'),
	('Europe/Berlin', '22:00', '06:00', '2026-03-28 23:00Z', '2026-03-28 21:00Z', '2026-03-29 04:00Z'),
	-- and back: 02:00 to 03:00 comes twice
	('Europe/Berlin', '01:00', '05:00', '2026-10-24 22:00Z', '2026-10-24 23:00Z', '2026-10-25 04:00Z'),
	('Europe/Berlin', '02:30', '04:00', '2026-10-24 22:00Z', '2026-10-25 01:30Z', '2026-10-25 03:00Z'),
	('Europe/Berlin', '01:00', '02:30', '2026-10-24 22:00Z', '2026-10-24 23:00Z', '2026-10-25 00:30Z'),
	('Europe/Berlin', '02:10', '02:50', '2026-10-24 22:00Z', '2026-10-25 00:10Z', '2026-10-25 00:50Z'),
	-- half an hour of summer; a day that a zone left out; half and quarter hours; no summer at all
	('Australia/Lord_Howe', '02:10', '03:00', '2026-10-03 12:00Z', '2026-10-03 15:30Z', '2026-10-03 16:00Z'),
	('Pacific/Apia', '10:00', '12:00', '2011-12-29 23:00Z', '2011-12-30 20:00Z', '2011-12-30 22:00Z'),
	('Asia/Kathmandu', '09:00', '10:00', '2026-01-15 00:00Z', '2026-01-15 03:15Z', '2026-01-15 04:15Z'),
	('Asia/Kolkata', '09:00', '10:00', '2026-01-15 00:00Z', '2026-01-15 03:30Z', '2026-01-15 04:30Z'),
	('+05:30', '09:00', '10:00', '2026-01-15 00:00Z', '2026-01-15 03:30Z', '2026-01-15 04:30Z'),
	('-09:30', '09:00', '10:00', '2026-01-15 00:00Z', '2026-01-15 18:30Z', '2026-01-15 19:30Z'),
	('UTC', '09:00', '10:00', '1969-12-31 09:30Z', '1969-12-31 09:00Z', '1969-12-31 10:00Z'),
	-- 26 hours apart: the same hour of the clock, on dates that differ by two
	('Pacific/Kiritimati', '09:00', '10:00', '2026-01-15 12:00Z', '2026-01-15 19:00Z', '2026-01-15 20:00Z'),
	('Etc/GMT+12', '09:00', '10:00', '2026-01-15 12:00Z', '2026-01-15 21:00Z', '2026-01-15 22:00Z')) v(z, f, t, a, o, c);
SELECT is(msg_window('Europe/Berlin', NULL, NULL, now()), '(,)'::tstzrange, 'no times: always');
SELECT is(msg_window(NULL, '09:00', '10:00', now()), NULL, 'no zone: unknown');
SELECT throws_ok($$SELECT msg_window('UTC', '09:00', '09:00', now())$$, '22023');
SELECT throws_ok($$SELECT msg_window('UTC', '09:00', '10:00', 'infinity')$$, '22023');
SELECT throws_ok($$SELECT msg_window('Nowhere', '09:00', '10:00', now())$$, '22023');
-- one statement asks for many windows, and what it remembers of one is not taken for another
SELECT is(count(*), 0::bigint, 'windows that are remembered are those that are asked for') FROM (
	SELECT z, a, f, msg_window(z, f, '23:00', a) AS remembered FROM (SELECT name AS z FROM pg_timezone_names WHERE name ~ '^(Asia|Africa)/') z,
		generate_series(timestamptz '2026-01-01', '2026-01-03', '7 hours') a, unnest(ARRAY[time '09:00', '10:00']) f) w
WHERE lower(remembered) <> ((lower(remembered) AT TIME ZONE z)::date + f) AT TIME ZONE z OR upper(remembered) <= a OR lower(remembered) > a + interval '24 h';

-- By PostgreSQL's own idea of local time, minute by minute over the days on which clocks change: while a window is open the clock shows a time within
-- it, and no minute within it is passed over but on a day that has an hour twice.
CREATE FUNCTION pg_temp.shows(z text, f time, t time, a timestamptz) RETURNS boolean LANGUAGE sql AS $$
SELECT CASE WHEN f < t THEN l >= f AND l < t ELSE l >= f OR l < t END FROM (SELECT (a AT TIME ZONE z)::time AS l) l
$$;
CREATE TEMP TABLE looks AS
SELECT z, f, t, a, back, msg_window(z, f, t, a) AS w
FROM (VALUES ('Europe/Berlin', timestamptz '2026-03-28 12:00Z', false), ('Europe/Berlin', '2026-10-24 12:00Z', true), ('America/New_York', '2026-03-07 18:00Z', false),
		('America/New_York', '2026-10-31 18:00Z', true), ('Australia/Lord_Howe', '2026-10-03 00:00Z', false), ('Australia/Lord_Howe', '2026-04-04 00:00Z', true),
		('America/St_Johns', '2026-03-07 18:00Z', false), ('Africa/Casablanca', '2026-03-21 12:00Z', false), ('Africa/Casablanca', '2026-02-14 12:00Z', true),
		('Pacific/Apia', '2011-12-29 20:00Z', false), ('Asia/Tehran', '2026-03-21 00:00Z', false)) z(z, day, back),
	(VALUES (time '09:00', time '21:00'), ('21:00', '09:00'), ('01:30', '02:30'), ('02:10', '02:20'), ('02:00', '03:00'), ('00:30', '01:15'), ('02:45', '01:15'), ('23:30', '00:30')) v(f, t),
	LATERAL generate_series(day, day + interval '36 h', interval '7 min') a;
SELECT is(count(*), 0::bigint, 'a window is open when the clock shows a time within it') FROM looks
WHERE NOT pg_temp.shows(z, f, t, lower(w)) OR NOT pg_temp.shows(z, f, t, upper(w) - interval '1 s') OR NOT pg_temp.shows(z, f, t, lower(w) + (upper(w) - lower(w)) / 2)
	OR NOT pg_temp.shows(z, f, t, greatest(a, lower(w)));
SELECT is(count(*), 0::bigint, 'and none is passed over') FROM looks WHERE NOT back AND pg_temp.shows(z, f, t, a) AND NOT w @> a;
SELECT cmp_ok(count(*) FILTER (WHERE NOT w @> a), '<', count(*) / 5, 'but part of an hour that comes twice') FROM looks WHERE back AND pg_temp.shows(z, f, t, a);
SELECT is(count(*), 0::bigint, 'it is the next one') FROM looks WHERE upper(w) <= a OR lower(w) > a + interval '50 h';

-- ---------------------------------------------------------------- texts
SELECT is(msg_mailing_payload(t, 7, 8, '+79161234567', '916', NULL, '+03:00', '{"name": "Ännä", "n": 1.50, "yes": true, "no": null, "list": [1, 2], "{x}": "y", "brace": "{tag}"}') ->> 'text', r, t)
FROM (VALUES ('plain', 'plain'), ('', ''), ('{name}', 'Ännä'), ('Hi {name}!', 'Hi Ännä!'), ('{client_id}/{mailing_id}/{phone}/{operator_code}/{time_zone}', '8/7/+79161234567/916/+03:00'),
	('[{tag}{unknown}{no}]', '[]'), ('{n} {yes} {list}', '1.50 true [1, 2]'), ('{brace}', '{tag}'), ('{', '{'), ('{}', '{}'), ('{ name }', '{ name }'), ('{{name}}', '{Ännä}'),
	('{name', '{name'), ('{1}', '{1}'), ('}{', '}{'), ('{a b}', '{a b}'), ('ü{name}ü', 'üÄnnäü')) v(t, r);
SELECT is(msg_mailing_payload('x', 7, 9007199254740993, '+79161234567'), '{"text": "x", "phone": "+79161234567", "client_id": 9007199254740993, "mailing_id": 7}', 'a payload');
SELECT is(msg_mailing_payload(repeat('{a}', 100), 7, 8, '+79161234567', NULL, NULL, 'UTC', jsonb_build_object('a', repeat('x', 20000))), NULL, 'a text that gets too long is none');

-- ---------------------------------------------------------------- mailings
-- set_clock(TIME): now is then, more or less
CREATE PROCEDURE pg_temp.set_clock(t timestamptz) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('msgsys.clock_offset', round(extract(epoch FROM t - clock_timestamp()))::text, false);
END $$;
-- work(PIECE): do what there is to be done now; how many pieces that was
CREATE PROCEDURE pg_temp.work(piece integer DEFAULT 1000, INOUT pieces integer DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
	pieces := 0;
	WHILE (msg_mailings_run(most => piece)).mailing IS NOT NULL LOOP
		pieces := pieces + 1;
	END LOOP;
END $$;
CALL pg_temp.set_clock('2026-06-01 00:00Z');
SELECT (msg_channel_set('m')).channel, (msg_channel_set('n')).channel;

SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-06-02', channel => 'nowhere')$$, '42704', 'channel "nowhere" does not exist');
SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-05-31')$$, '22023', 'mailing ends before it can begin');
SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-06-02', '2026-06-03')$$, '23514');
SELECT throws_ok($$SELECT msg_mailing_create('x', 'infinity')$$, '23514');
SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-06-02', '-infinity')$$, '23514');
SELECT throws_ok($$SELECT msg_mailing_create(NULL, '2026-06-02')$$, '23502');
SELECT throws_ok($$SELECT msg_mailing_create('x', NULL)$$, '23502');
SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-06-02', window_from => '09:00')$$, '23514');
SELECT throws_ok($$SELECT msg_mailing_create('x', '2026-06-02', window_from => '09:00', window_to => '09:00')$$, '23514');

-- 1,000 clients: 4 tags (one of them none), 2 operators, 5 zones 26 hours apart
INSERT INTO msg_clients (id, phone, tag, time_zone, attributes)
SELECT g, format('79%s%s', CASE WHEN g / 4 % 2 = 0 THEN '03' ELSE '16' END, lpad(g::text, 7, '0')), (ARRAY['vip', 'gold', 'silver'])[g % 4],
	(ARRAY['Pacific/Kiritimati', 'Europe/Moscow', 'America/New_York', 'Etc/GMT+12', '+05:30'])[g % 5 + 1], jsonb_build_object('name', 'N' || g)
FROM generate_series(1, 1000) g;
ANALYZE msg_clients;

SELECT msg_mailing_create('Dear {name}', '2026-06-10 12:00Z', '2026-06-01 12:00Z', 'm', tags => '{vip,gold}', operator_codes => '{903}', window_from => '09:00', window_to => '12:00') AS first \gset
CALL pg_temp.work();
SELECT is(count(*), 0::bigint, 'nothing is made before the start') FROM messages;
SELECT is(next_at, '2026-06-01 12:00Z', 'when there will be') FROM msg_mailings_run();
SELECT lives_ok(format($$SELECT msg_mailing_update(%s, text => 'Hello {name}')$$, :first), 'changed before its start');
CALL pg_temp.set_clock('2026-06-01 12:00:01Z');
CALL pg_temp.work(300) \gset
SELECT is(:pieces, 4, 'in pieces, and the last one finds no more');
SELECT is(count(*), 250::bigint, 'each client of the filter has a message') FROM messages;
SELECT bag_eq('SELECT client_id FROM msg_mailing_links', $$SELECT id FROM msg_clients WHERE tag IN ('vip', 'gold') AND operator_code = '903'$$, 'and no other has');
SELECT is(count(*), 0::bigint, 'within the window, in its own zone') FROM messages m JOIN msg_clients c ON c.id = m.message_key::bigint
WHERE (m.due_at AT TIME ZONE (CASE WHEN c.time_zone = '+05:30' THEN 'Asia/Kolkata' ELSE c.time_zone END))::time <> '09:00'
	OR (m.expires_at AT TIME ZONE (CASE WHEN c.time_zone = '+05:30' THEN 'Asia/Kolkata' ELSE c.time_zone END))::time <> '12:00'
	OR m.expires_at - m.due_at <> '3 h' OR m.status <> 'scheduled' OR m.due_at < '2026-06-01 12:00Z' OR m.due_at > '2026-06-02 12:01Z';
SELECT set_eq('SELECT due_at FROM messages', $$VALUES ('2026-06-01 19:00Z'::timestamptz), ('2026-06-02 06:00Z'), ('2026-06-01 13:00Z'), ('2026-06-01 21:00Z'), ('2026-06-02 03:30Z')$$, 'from one end of the world to the other');
SELECT is(m.payload, jsonb_build_object('text', 'Hello N' || c.id, 'phone', c.phone, 'client_id', c.id, 'mailing_id', :first), 'with its own text')
FROM messages m JOIN msg_clients c ON c.id = m.message_key::bigint ORDER BY m.id LIMIT 1;
SELECT is((channel, event_type, attempts)::text, '(m,mailing,0)', 'as an ordinary message') FROM messages LIMIT 1;
SELECT is((state, clients, scheduled, left_out, idle + retry + sent + received + delivered + dead + cancelled + expired + purged)::text, '(expanded,250,250,0,0)', 'statistics say so') FROM msg_mailing_stats(:first);
SELECT throws_ok(format($$SELECT msg_mailing_update(%s, channel => 'n')$$, :first), '55000', NULL, 'the channel cannot be changed any more');
SELECT throws_ok($$SELECT msg_channel_drop('m', true)$$, '55006', 'channel "m" has mailings that are not over');

-- changes after the start
SELECT lives_ok(format($$SELECT msg_mailing_update(%s, text => 'Bye {name}', tags => '{gold,silver}', window_from => '10:00', window_to => '11:00')$$, :first), 'changed after its start');
UPDATE messages SET status = 'sent', finished_at = now() WHERE message_key IN ('1', '2');
CALL pg_temp.work(300);
SELECT bag_eq('SELECT client_id FROM msg_mailing_links', $$SELECT id FROM msg_clients WHERE tag IN ('gold', 'silver') AND operator_code = '903' UNION SELECT 1 UNION SELECT 2$$,
	'who is not meant any more is out, who is now meant is in, who has it, has it');
SELECT is(count(*) FILTER (WHERE status = 'scheduled'), (SELECT count(*) FROM msg_clients WHERE tag IN ('gold', 'silver') AND operator_code = '903' AND id NOT IN (1, 2)), 'what is not yet sent') FROM messages;
SELECT is(count(*), 0::bigint, 'follows') FROM messages m JOIN msg_clients c ON c.id = m.message_key::bigint
WHERE m.status = 'scheduled' AND (m.payload ->> 'text' <> 'Bye N' || c.id OR m.expires_at - m.due_at <> '1 h' OR extract(minute FROM m.due_at) NOT IN (0, 30));
SELECT is(array_agg(payload ->> 'text' ORDER BY id), '{Hello N1,Hello N2}', 'what is sent stays as it was') FROM messages WHERE status = 'sent';
SELECT is(count(*), (SELECT count(*) FROM msg_clients WHERE tag = 'vip' AND operator_code = '903' AND id <> 1), 'the rest is cancelled') FROM messages WHERE status = 'cancelled';
SELECT is((clients, scheduled, sent)::text, format('(%s,%s,2)', clients, clients - 2), 'the statistics add up') FROM msg_mailing_stats(:first);
SELECT is(count(*), count(DISTINCT message_key), 'nobody has two') FROM messages WHERE status <> 'cancelled';

-- clients that change
SELECT client_id AS c, message_id AS m FROM msg_mailing_log WHERE status = 'scheduled' ORDER BY client_id LIMIT 1 \gset
SELECT is(msg_client_set(time_zone => 'Asia/Tokyo', attributes => '{"name": "Taro"}', id => :c) IS NOT NULL, true, 'a client moves');
SELECT is((payload ->> 'text', due_at AT TIME ZONE 'Asia/Tokyo', status)::text, '("Bye Taro","2026-06-02 10:00:00",scheduled)', 'and the message follows') FROM messages WHERE id = :m;
SELECT is(msg_client_set(tag => 'vip', id => :c) IS NOT NULL, true, 'it is no client of this mailing any more');
SELECT is(status, 'cancelled', 'and gets no message') FROM messages WHERE id = :m;
SELECT is(count(*), 0::bigint, 'nor is counted') FROM msg_mailing_links WHERE client_id = :c;
SELECT client_id AS c, message_id AS m FROM msg_mailing_log WHERE status = 'scheduled' ORDER BY client_id LIMIT 1 \gset
SELECT ok(msg_client_drop(:c), 'a client goes');
SELECT is(status, 'cancelled', 'and gets no message') FROM messages WHERE id = :m;
SELECT ok(msg_cancel((SELECT max(message_id) FROM msg_mailing_links)), 'one message is cancelled by hand');
SELECT is(cancelled, 1::bigint, 'which counts as that') FROM msg_mailing_stats(:first);

-- found by mailing, message and client
SELECT is(count(*), (SELECT clients FROM msg_mailing_stats(:first)), 'all messages of a mailing') FROM msg_mailing_messages(:first, "limit" => 10000);
SELECT is(array_agg(client_id), '{1,2}', 'of one status') FROM msg_mailing_messages(:first, 'sent');
SELECT is((array_agg(client_id))[1] > 2, true, 'after one') FROM msg_mailing_messages(:first, after => 2, "limit" => 1);
SELECT throws_ok(format('SELECT msg_mailing_messages(%s, "limit" => -1)', :first), '22023');
SELECT is((mailing_id, status)::text, format('(%s,sent)', :first), 'by client') FROM msg_mailing_log WHERE client_id = 2;
SELECT is((mailing_id, client_id)::text, format('(%s,2)', :first), 'by message') FROM msg_mailing_log WHERE message_id = (SELECT message_id FROM msg_mailing_links WHERE client_id = 2);

-- the end
DELETE FROM messages WHERE message_key = '1';
SELECT is((purged, sent)::text, '(1,1)', 'a purged message is counted as that') FROM msg_mailing_stats(:first);
CALL pg_temp.set_clock('2026-06-10 12:00:01Z');
CALL pg_temp.work();
SELECT is(state, 'finished', 'it is over') FROM msg_mailing_stats(:first);
SELECT throws_ok(format($$SELECT msg_mailing_update(%s, text => 'x')$$, :first), '55000', format('mailing %s is finished', :first));
SELECT ok(NOT msg_mailing_cancel(:first), 'and cannot be cancelled');
SELECT ok(msg_mailing_delete(:first), 'but forgotten');
CALL pg_temp.work(100);
SELECT is((SELECT count(*) FROM msg_mailings) + (SELECT count(*) FROM msg_mailing_links), 0::bigint, 'with its links');
SELECT cmp_ok(count(*), '>', 250::bigint, 'and its messages stay') FROM messages;
SELECT is(count(*), 0::bigint, 'cancelled where they were not sent') FROM messages WHERE status = 'scheduled';
SELECT ok(NOT msg_mailing_delete(:first), 'only once');
SELECT throws_ok(format($$SELECT msg_mailing_update(%s, text => 'x')$$, :first), '42704');
DELETE FROM messages;

-- started in the middle of a window: at once; a window that does not open before the end: nobody
CALL pg_temp.set_clock('2026-06-11 07:00Z');
SELECT msg_mailing_create('x', '2026-06-11 12:00Z', channel => 'm', window_from => '09:00', window_to => '12:00') AS second \gset
CALL pg_temp.work();
SELECT set_eq($$SELECT c.time_zone, m.status, m.due_at, m.expires_at FROM messages m JOIN msg_clients c ON c.id = m.message_key::bigint$$,
	$$VALUES ('Europe/Moscow', 'idle'::msg_status, NULL::timestamptz, '2026-06-11 09:00Z'::timestamptz)$$, 'those whose window is open, at once');
SELECT is((clients, left_out, clients + left_out)::text, format('(%s,%s,%s)', count(*) FILTER (WHERE c.time_zone = 'Europe/Moscow'), count(*) FILTER (WHERE c.time_zone <> 'Europe/Moscow'), count(*)),
	'the others are left out, and counted') FROM msg_mailing_stats(:second), msg_clients c GROUP BY clients, left_out;
-- extended by a day, they are in
SELECT is((msg_mailing_update(:second, ends_at => '2026-06-12 12:00Z')).status, 'running', 'extended');
CALL pg_temp.work(77);
SELECT is((clients, left_out, idle)::text, format('(%s,0,%s)', count(*), count(*) FILTER (WHERE c.time_zone = 'Europe/Moscow')), 'now all have a message') FROM msg_mailing_stats(:second), msg_clients c GROUP BY clients, left_out, idle;
SELECT is(count(*), count(DISTINCT message_key), 'and nobody two') FROM messages;
-- without a window: all at once, until the end
SELECT is((msg_mailing_update(:second, window_from => '00:00', window_to => '24:00')).window_to, '24:00', 'all day');
CALL pg_temp.work();
SELECT is(count(*) FILTER (WHERE status NOT IN ('idle', 'scheduled') OR due_at > msg_now()), 0::bigint, 'all may be sent') FROM messages;
-- a start that is put off takes back what is not sent
SELECT is((msg_mailing_update(:second, starts_at => '2026-06-12 00:00Z', window_from => '00:00', window_to => '24:00')).status, 'running', 'put off');
CALL pg_temp.work();
SELECT is(count(*) FILTER (WHERE due_at >= '2026-06-12 00:00Z' AND status = 'scheduled'), count(*), 'nothing is sent before') FROM messages;
-- cancelled
SELECT ok(msg_mailing_cancel(:second), 'cancelled');
CALL pg_temp.work(100);
SELECT is((state, clients, cancelled)::text, format('(cancelled,%s,%s)', clients, clients), 'with all that was not sent') FROM msg_mailing_stats(:second);
SELECT ok(NOT msg_mailing_cancel(:second), 'only once');
SELECT ok(msg_mailing_cancel(msg_mailing_create('x', '2026-07-01', '2026-06-30', 'm')), 'one that has not begun is cancelled');
SELECT is(count(*), 2::bigint, 'at once') FROM msg_mailings WHERE status = 'cancelled' AND act_at IS NULL;

-- a mailing over midnight, without filters, in the middle of which clocks are put back
DELETE FROM messages;
CALL pg_temp.set_clock('2026-10-24 12:00Z');
SELECT msg_client_set('+4915100000001', time_zone => 'Europe/Berlin', tag => 'late', id => 5000) IS NOT NULL;
SELECT msg_mailing_create('x', '2026-10-26 12:00Z', channel => 'm', tags => '{late}', window_from => '22:00', window_to => '06:00') AS third \gset
CALL pg_temp.work();
SELECT is((due_at, expires_at)::text, '("2026-10-24 20:00:00+00","2026-10-25 05:00:00+00")', 'the night of an hour more') FROM messages;

-- the report of a day
UPDATE messages SET status = 'delivered', delivered_at = '2026-10-25 01:00Z', finished_at = '2026-10-25 01:00Z';
SELECT is((mailing_id, delivered, waiting)::text, format('(%s,1,0)', :third), 'of the day on which it ended') FROM msg_daily_report('2026-10-25');
SELECT is((mailing_id, delivered, waiting)::text, format('(%s,0,0)', :third), 'not of the day before') FROM msg_daily_report('2026-10-24');
SET timezone = 'America/New_York';
SELECT is(delivered, 1::bigint, 'a day is one of the session''s zone') FROM msg_daily_report('2026-10-24');
SET timezone = 'UTC';
SELECT is(count(*), 0::bigint, 'no mailing, no row') FROM msg_daily_report('2026-11-01');

-- a restored mailing is not begun
SELECT is(r.mailing, NULL, 'of another installation') FROM msg_mailing_create('x', '2026-10-26', channel => 'm') g, LATERAL msg_mailings_run(others => ARRAY[msg_epoch()]) r;
-- a text that is too long for one client
DELETE FROM msg_mailings;
DELETE FROM messages;
SELECT msg_client_set(attributes => jsonb_build_object('name', repeat('x', 400000)), id => 5000) IS NOT NULL;
SELECT msg_mailing_create('{name}{name}{name}', '2026-10-26', channel => 'm', tags => '{late}') AS long \gset
CALL pg_temp.work();
SELECT is((clients, left_out)::text, '(0,1)', 'leaves that one out') FROM msg_mailing_stats(:long);
SELECT * FROM finish();
