-- Webhooks: what may be stored, what may not, secrets, redriving. No worker serves this database.
\set VERBOSITY terse
SET client_min_messages = error;
DROP EXTENSION IF EXISTS msgsys CASCADE;
CREATE EXTENSION msgsys;
SELECT topic FROM msg_channel_set('hook');
RESET client_min_messages;

-- what it needs
SELECT msg_webhook_set('nowhere', 'https://example.com/');
SELECT msg_webhook_set('hook');
SELECT url, method, timeout, array_length(retry_schedule, 1) AS waits, concurrency, ordered, disabled_at FROM msg_webhook_set('hook', 'https://example.com/in/{id}?k={key}');

-- every spelling of an address that is not public
SELECT url, msg_webhook_check(url) FROM (VALUES ('http://127.0.0.1/')) v(url);
DO $$
DECLARE
	u text;
BEGIN
	FOREACH u IN ARRAY ARRAY['http://127.1/', 'http://2130706433/', 'http://0x7f.1/', 'http://0177.0.0.1/', 'http://0/', 'http://[::1]/', 'http://[::ffff:127.0.0.1]/',
		'http://[64:ff9b::7f00:1]/', 'http://[2002:7f00:1::]/', 'http://10.0.0.1/', 'http://172.16.0.1/', 'http://192.168.1.1/', 'http://169.254.169.254/',
		'http://100.64.0.1/', 'http://224.0.0.1/', 'http://[fe80::1]/', 'http://[fd00::1]/', 'http://0.0.0.0/', 'ftp://example.com/', 'file:///etc/passwd',
		'gopher://example.com/', 'example.com', 'http:///x', 'http://user:pw@example.com/', E'http://example.com/\nX', 'http://localhost\@example.com/',
		'http://[fe80::1%25eth0]/', 'http://[fe80::1%eth0]/', 'http://[::]/', 'http://[64:ff9b:1::7f00:1]/', 'http://[::127.0.0.1]/', 'http://127.0.0.1./', 'http://0x7f000001/',
		'http://017700000001/', 'http://{key}/', 'http://127.0.0.{key}/', 'http://127%2e0.0.1/', 'http://' || repeat('a', 300) || '/', 'http://example.com/' || repeat('a', 9000)]
	LOOP
		BEGIN
			PERFORM msg_webhook_set('hook', u);
			RAISE NOTICE 'accepted: %', u;
		EXCEPTION WHEN invalid_parameter_value THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT url FROM msg_webhooks;
-- and of a proxy's
DO $$
DECLARE
	u text;
BEGIN
	FOREACH u IN ARRAY ARRAY['http://127.0.0.1:3128', '10.0.0.1:3128', 'socks5h://user:pw@[::1]:1080', 'SOCKS5://0x7f.1', 'https://localhost', 'http://user@10.0.0.1@127.0.0.1',
		'gopher://example.com', 'file:///etc/passwd', 'http://example.com x', E'http://example.com\n', 'http://', 'http://example.com:99999', '://example.com']
	LOOP
		BEGIN
			PERFORM msg_webhook_set('hook', proxy => u);
			RAISE NOTICE 'accepted: %', u;
		EXCEPTION WHEN invalid_parameter_value THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT msg_webhook_set('hook', proxy => '10.0.0.1:3128');
SELECT msg_webhook_set('hook', proxy => 'ftp://proxy.example.com');
SELECT proxy FROM msg_webhook_set('hook', proxy => 'http://user:pw@proxy.example.com:3128');
SELECT proxy FROM msg_webhook_set('hook', proxy => '');

-- headers
SELECT msg_webhook_set('hook', headers => '{"X-One": "1", "a b": "2"}');
SELECT msg_webhook_set('hook', headers => '{"X-One": "1\r\nX-Two: 2"}');
SELECT msg_webhook_set('hook', headers => '{"Host": "elsewhere"}');
SELECT msg_webhook_set('hook', headers => '{"webhook-id": "1"}');
SELECT msg_webhook_set('hook', headers => '{"X-One": 1}');
SELECT msg_webhook_set('hook', secret_headers => '{"Content-Length": "1"}');
SELECT headers FROM msg_webhook_set('hook', headers => '{"X-One": "1"}', secret_headers => '{"X-Key": "s3cret"}', bearer => 'token');
SELECT msg_webhook_set('hook', bearer => E'a\nb');

-- out of range
SELECT msg_webhook_set('hook', method => 'GET');
SELECT msg_webhook_set('hook', concurrency => 0);
SELECT msg_webhook_set('hook', timeout => '1 h');
SELECT msg_webhook_set('hook', redirects => 100);
SELECT msg_webhook_set('hook', headers => jsonb_build_object('X-One', repeat('x', 70000)));
SELECT msg_webhook_set('hook', secret_headers => jsonb_build_object('X-Key', repeat('x', 70000)));
SELECT msg_webhook_set('hook', bearer => repeat('x', 70000));
SELECT msg_webhook_set('hook', body_template => jsonb_build_object('x', repeat('x', 2000000)));
SELECT msg_webhook_set('hook', ca_file => repeat('x', 5000));
SELECT msg_webhook_set('hook', retry_schedule => array_fill('1 s'::interval, ARRAY[1001]));
SELECT msg_webhook_enable('hook', false, repeat('x', 10000));

-- taken away
SELECT headers, retry_schedule, rate, ca_file FROM msg_webhook_set('hook', headers => '{}', retry_schedule => '{}', rate => 5, ca_file => '/x');
SELECT headers, retry_schedule, rate, ca_file FROM msg_webhook_set('hook', rate => 0, ca_file => '');
SELECT kind, name, value FROM msg_webhook_secrets ORDER BY 1;
SELECT count(*) FROM msg_webhook_set('hook', secret_headers => '{"x-key": null}', bearer => '');
SELECT count(*) FROM msg_webhook_secrets;

-- a topic that nothing acknowledges leads to no webhook
SELECT topic FROM msg_channel_set('hook', topic => 'hook', ack => 'none');
SELECT topic, ack FROM msg_channel_set('hook', topic => 'hook');
SELECT topic, ack FROM msg_channel_set('t', topic => 't', ack => 'none');
SELECT msg_webhook_set('t', 'https://example.com/');

-- signing secrets
SELECT msg_channel_rotate_secret('t');
SELECT msg_channel_rotate_secret('hook', secret => 'whsec_short');
SELECT msg_channel_rotate_secret('hook', secret => 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw');
SELECT msg_webhook_secret_valid(msg_channel_rotate_secret('hook')) AS valid, msg_webhook_secret() <> msg_webhook_secret() AS random;
SELECT count(*) FILTER (WHERE expires_at IS NULL) AS current, count(*) FILTER (WHERE expires_at > now() + interval '23 h') AS ending FROM msg_webhook_secrets WHERE kind = 'signing';
SELECT msg_channel_rotate_secret('hook') IS NULL, msg_channel_rotate_secret('hook') IS NULL;
SELECT msg_channel_rotate_secret('hook');
SELECT count(*) FROM msg_webhook_secrets WHERE kind = 'signing' AND msg_channel_rotate_secret('hook', overlap => '0') IS NOT NULL GROUP BY channel;

-- disabled and enabled
SELECT msg_webhook_enable('hook', false, 'maintenance'), msg_webhook_enable('hook', false), msg_webhook_enable('t');
SELECT msg_webhook_enable('hook', false, 'maintenance'), msg_webhook_enable('hook', false);
SELECT disabled_at IS NOT NULL AS disabled, disabled_reason FROM msg_webhooks;
SELECT msg_webhook_enable('hook');

-- dead messages, redriven by channel, time, error and number
INSERT INTO messages (channel, payload) SELECT 'hook', to_jsonb(g) FROM generate_series(1, 10) g;
UPDATE messages SET status = 'dead', finished_at = now(), attempts = 10, last_error = CASE WHEN id % 2 = 0 THEN 'status 503' ELSE 'timeout' END, dlq_pending = true;
SELECT msg_redrive('t'), msg_redrive('hook', error => '%404%'), msg_redrive('hook', "to" => now() - interval '1 h');
SELECT msg_redrive('hook', error => 'status 5%', "limit" => 2), msg_redrive('hook', "from" => now() - interval '1 h', error => 'timeout'), msg_redrive();
SELECT status, attempts, count(*), count(finished_at) AS finished, count(dlq_pending) AS letters FROM messages GROUP BY 1, 2;
SELECT msg_redrive('no such channel');

-- what was received and waited for the webhook ends with it
UPDATE messages SET status = 'received', finished_at = NULL WHERE payload = '1';
SELECT msg_live('hook') AS live;
SELECT msg_webhook_drop('hook'), msg_webhook_drop('hook');
SELECT count(*) FILTER (WHERE finished_at IS NOT NULL) AS finished FROM messages WHERE status = 'received';
SELECT count(*) FROM msg_webhook_secrets;

-- an operator sets webhooks and reads no secret
CREATE ROLE msgsys_hook_operator;
SELECT msg_grant('msgsys_hook_operator', 'operator');
SET ROLE msgsys_hook_operator;
SELECT url FROM msg_webhook_set('hook', 'https://example.com/', bearer => 'b', secret_headers => '{"X-Key": "s"}');
SELECT length(msg_channel_rotate_secret('hook'));
SELECT value FROM msg_webhook_secrets;
SELECT count(*) FROM msg_attempts;
SELECT msg_webhook_drop('hook');
RESET ROLE;
DROP OWNED BY msgsys_hook_operator;
DROP ROLE msgsys_hook_operator;

-- a reader sees neither secrets nor what endpoints answered
CREATE ROLE msgsys_hook_reader;
SELECT msg_grant('msgsys_hook_reader', 'reader');
SET ROLE msgsys_hook_reader;
SELECT value FROM msg_webhook_secrets;
SELECT excerpt FROM msg_attempts;
SELECT count(id) FROM msg_attempts;
RESET ROLE;
DROP OWNED BY msgsys_hook_reader;
DROP ROLE msgsys_hook_reader;
