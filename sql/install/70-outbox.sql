-- 70-outbox.sql: Debezium's outbox, and samples.

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
		SELECT g, 1000 + r[1] % 9000 AS customer, 100000 + g AS number, 1 + r[2] % 3 AS count, round((100 + r[3] % 20000) / 100.0, 2) AS price, names[1 + r[1] % 25] AS name,
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
