-- Nobody gets in by objects in the extension's schema, made before CREATE EXTENSION or after it, that fit better than those that are meant: operators for every pair of
-- types, twins of each function with every other type for each argument, tables where partitions are to be. Each body is resolved among them by plpgsql_check, or as
-- a body that is parsed when it is made. `make lint` runs this too.
\set QUIET on
CREATE SCHEMA tap;
CREATE EXTENSION pgtap SCHEMA tap;
CREATE EXTENSION plpgsql_check SCHEMA tap;
-- for this file, which what lies in wait in public would catch too
SET search_path = pg_catalog, tap, pg_temp;
\pset format unaligned
\pset tuples_only on
SELECT * FROM no_plan();
SET client_min_messages = error;
SET allow_system_table_mods = on;

-- what whoever owns the schema may make, by hand and by the thousand
CREATE FUNCTION public.trap(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile operator called'; END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = public.trap);
CREATE TEMP TABLE hostile_types AS SELECT DISTINCT unnest('{bool,char,bpchar,varchar,text,name,int2,int4,int8,float4,float8,numeric,oid,regclass,regproc,regprocedure,regnamespace,regtype,regrole,
	json,jsonb,jsonpath,bytea,timestamptz,timestamp,date,time,timetz,interval,uuid,tid,xid,tstzrange,text[],name[],int2[],int4[],int8[],oid[],bool[],interval[],regtype[],anyarray,anyelement,
	anynonarray,anyenum,anycompatible,anycompatiblearray}'::regtype[])::oid AS type;
INSERT INTO pg_operator (oid, oprname, oprnamespace, oprowner, oprkind, oprcanmerge, oprcanhash, oprleft, oprright, oprresult, oprcom, oprnegate, oprcode, oprrest, oprjoin)
SELECT 3000000000 + row_number() OVER (), o.name, 'public'::regnamespace, 10, 'b', false, false, l.type, r.type, 'bool'::regtype, 0, 0, 'public.trap(oid, regclass)'::regprocedure, 0, 0
FROM (SELECT DISTINCT oprname AS name FROM pg_operator WHERE oprname = ANY ('{=,<>,<,<=,>,>=,+,-,*,/,%,||,~,!~,~*,~~,!~~,~~*,->,->>,#>,#>>,?,?|,?&,@>,<@,&&,&,@?,@@}')) o, hostile_types l, hostile_types r
WHERE NOT EXISTS (SELECT FROM pg_operator p WHERE p.oprname = o.name AND p.oprleft = l.type AND p.oprright = r.type);
SELECT cmp_ok(count(*), '>', 30000::bigint, 'operators lie in wait') FROM pg_operator WHERE oprnamespace = 'public'::regnamespace;
CREATE TABLE public.msg_archive_2026_10 (LIKE pg_class);
CREATE DOMAIN public.d AS text CHECK (false);

CREATE ROLE hijack_everybody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO hijack_everybody WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO hijack_everybody;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO hijack_everybody;

SELECT lives_ok('CREATE EXTENSION msgsys SCHEMA public', 'the extension is made where they are');

-- what the script left behind
CREATE TEMP VIEW members AS SELECT classid, objid FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'msgsys' AND d.deptype = 'e';
-- theirs, and what is part of them: columns' defaults, constraints, indexes, rules, triggers, row types
CREATE TEMP VIEW parts AS WITH RECURSIVE p AS (SELECT classid, objid FROM members UNION SELECT d.classid, d.objid FROM pg_depend d JOIN p ON d.refclassid = p.classid AND d.refobjid = p.objid
	AND d.deptype IN ('a', 'i', 'P', 'S') AND d.classid <> 'pg_extension'::regclass) SELECT * FROM p;
-- in pg_depend only what is not pinned: nothing of pg_catalog is named, but in another schema all is
CREATE TEMP VIEW strangers AS SELECT pg_describe_object(d.classid, d.objid, 0) || ' uses ' || pg_describe_object(d.refclassid, d.refobjid, 0) AS fault
FROM pg_depend d JOIN parts p ON p.classid = d.classid AND p.objid = d.objid
WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_class'::regclass, 'pg_cast'::regclass)
	AND (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM parts)
	AND NOT EXISTS (SELECT FROM pg_type t JOIN parts a ON a.classid = 'pg_class'::regclass AND a.objid = t.typrelid WHERE d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid)
	AND pg_describe_object(d.refclassid, d.refobjid, 0) !~ ' pg_catalog\.';
SELECT is_empty('SELECT fault FROM strangers', 'constraints, defaults, indexes, views, rules and triggers depend on pg_catalog and on the extension alone');
SELECT cmp_ok(count(*), '>', 100::bigint, 'of which there are some') FROM parts;

-- what default privileges would have given away
SELECT is_empty($$SELECT c.relname, a.grantee::regrole, a.privilege_type FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner$$,
	'tables, views and sequences are for nobody but their owner');
SELECT is_empty($$SELECT p.oid::regprocedure FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE a.grantee <> p.proowner$$, 'functions too');
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM hijack_everybody, PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM hijack_everybody;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON FUNCTIONS FROM hijack_everybody;
DROP OWNED BY hijack_everybody;
DROP ROLE hijack_everybody;

-- functions
CREATE TEMP VIEW functions AS SELECT p.*, l.lanname FROM members m JOIN pg_proc p ON p.oid = m.objid JOIN pg_language l ON l.oid = p.prolang WHERE m.classid = 'pg_proc'::regclass;
SELECT is_empty($$SELECT proname FROM functions WHERE lanname <> 'c' AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)$$, 'each body has a search_path of its own');
SELECT is_empty($$SELECT proname FROM functions WHERE prosecdef AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)$$, 'and each that runs with its owner''s rights');
SELECT is_empty($$SELECT proname FROM functions WHERE prosrc ~* 'create +(or +replace|.*if +not +exists)'$$, 'none takes what is there for its own');

-- twins: fewer arguments where there are defaults, and every other type in place of each
INSERT INTO pg_proc (oid, proname, pronamespace, proowner, prolang, procost, prorows, provariadic, prosupport, prokind, prosecdef, proleakproof, proisstrict, proretset, provolatile,
	proparallel, pronargs, pronargdefaults, prorettype, proargtypes, proargnames, prosrc)
SELECT 3500000000 + row_number() OVER (), f.proname, f.pronamespace, 10, (SELECT oid FROM pg_language WHERE lanname = 'plpgsql'), 1, 0, 0, 0, 'f', false, false, false, false, 'v', 'u', v.n, 0,
	'bool'::regtype, v.types::oidvector, f.proargnames[1:v.n], 'BEGIN RAISE ''hostile twin called''; END'
FROM functions f, LATERAL (SELECT DISTINCT n, array_to_string(ARRAY(SELECT CASE WHEN k = changed THEN t.type ELSE f.proargtypes[k - 1] END FROM generate_series(1, n) k), ' ') AS types
	FROM generate_series(f.pronargs::int - f.pronargdefaults::int, f.pronargs::int) n, generate_series(least(n, 1), n) changed, hostile_types t
	WHERE t.type::regtype::text !~ '^any' OR t.type = 0) v
WHERE f.prorettype NOT IN ('trigger'::regtype) AND NOT EXISTS (SELECT FROM pg_proc o WHERE o.proname = f.proname AND o.pronamespace = f.pronamespace AND o.proargtypes = v.types::oidvector);
SELECT cmp_ok(count(*), '>', 10000::bigint, 'twins lie in wait') FROM pg_proc WHERE oid >= 3500000000;

CREATE FUNCTION pg_temp.body_faults(f oid) RETURNS SETOF text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	g functions;
	table_of regclass := coalesce((SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = f LIMIT 1), 0);
	at text;
BEGIN
	SELECT * INTO g FROM functions WHERE oid = f;
	IF g.lanname = 'plpgsql' THEN
		-- an error would end the next look early, without a word
		RETURN QUERY SELECT concat_ws(' ', g.proname, t.lineno, t.message, t.query) FROM tap.plpgsql_check_function_tb(f, relid => table_of, fatal_errors => false, other_warnings => false,
			performance_warnings => false, extra_warnings => false, security_warnings => true) t
		-- whose job it is to run a query, with the caller's rights
		WHERE NOT (g.proname = 'msg_create_from_query' AND t.message = 'text type variable is not sanitized');
		RETURN QUERY SELECT concat_ws(' ', g.proname, 'calls', t.type, t.schema || '.' || t.name || t.params) FROM tap.plpgsql_show_dependency_tb(f, relid => table_of) t
		WHERE t.type IN ('FUNCTION', 'OPERATOR') AND t.schema <> 'pg_catalog' AND (t.type = 'OPERATOR' OR t.oid NOT IN (SELECT m.objid FROM members m WHERE m.classid = 'pg_proc'::regclass));
	ELSIF g.lanname = 'sql' THEN
		EXECUTE format('CREATE FUNCTION copies.%I(%s) RETURNS %s LANGUAGE sql VOLATILE BEGIN ATOMIC %s; END', g.proname, pg_get_function_arguments(f), pg_get_function_result(f),
			regexp_replace(g.prosrc, ';?\s*$', ''));
		RETURN QUERY SELECT g.proname || ' calls ' || pg_describe_object(d.refclassid, d.refobjid, 0) FROM pg_depend d
		WHERE d.classid = 'pg_proc'::regclass AND d.objid = (SELECT p.oid FROM pg_proc p WHERE p.proname = g.proname AND p.pronamespace = 'copies'::regnamespace)
			AND (d.refclassid = 'pg_operator'::regclass OR (d.refclassid = 'pg_proc'::regclass AND d.refobjid NOT IN (SELECT m.objid FROM members m WHERE m.classid = 'pg_proc'::regclass)));
	END IF;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS at = PG_EXCEPTION_CONTEXT;
	RETURN NEXT g.proname || ': ' || SQLERRM || ' ' || at;
END $$;
CREATE SCHEMA copies;
SELECT is_empty(format('SELECT pg_temp.body_faults(%s)', oid), proname || ' resolves to what is meant') FROM functions WHERE lanname IN ('sql', 'plpgsql') ORDER BY proname;

-- tables that lie where partitions are to be
SELECT throws_ok($$SELECT public.msg_archive_partition('2026-10-11'::timestamptz)$$, '42P07', '"msg_archive_2026_10" is there, and is no partition of msg_archive', 'a table is not taken for a partition');
SELECT lives_ok($$SELECT public.msg_archive_partition('2026-11-11'::timestamptz), public.msg_archive_partition('2026-11-12'::timestamptz)$$, 'a partition is');
SELECT is_empty($$SELECT c.relname, a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a WHERE c.relname = 'msg_archive_2026_11' AND a.grantee <> c.relowner$$,
	'whose rows nobody reads by default privileges');
-- rights are for what is the extension's
CREATE ROLE hijack_reader;
SELECT lives_ok($$SELECT public.msg_grant('hijack_reader'::name, 'operator'::text)$$, 'rights are granted');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE p.oid >= 3500000000::oid AND p.proacl IS NOT NULL$$, 'on nothing that looks alike');
DROP OWNED BY hijack_reader;
DROP ROLE hijack_reader;

-- what is written down while they lie there: settings that CHECK constraints judge, a query, the routes of other systems
SELECT lives_ok($$SELECT public.msg_channel_set('shop'::text, ''::text, 'readback'::text, 5, '2 s'::interval, '3 s'::interval, '9 s'::interval),
	public.msg_http_000_create('{"body": "{\"message\": \"hello\"}"}'::jsonb), public.msg_http_002_stop('{}'::jsonb), public.msg_http_002_start('{}'::jsonb), public.msg_openapi()$$, 'functions work');
SELECT lives_ok($$INSERT INTO public.msg_webhooks (channel, url, rate, breaker_share, concurrency) VALUES ('shop', 'https://example.com/', 3, 1, 5)$$, 'and constraints');
SELECT lives_ok($$INSERT INTO public.messages (channel, payload) SELECT 'shop', '1' FROM generate_series(1, 3); UPDATE public.messages SET status = 'idle' WHERE id = 1;
	SELECT FROM public.msg_backlog; SELECT FROM public.msg_workers; SELECT FROM public.msg_webhook_settings; SELECT FROM public.msg_mailing_log; SELECT FROM public.msg_outbox$$, 'triggers and views');
-- what lay in wait would be in the way of msg_check() too
DELETE FROM pg_proc WHERE oid >= 3500000000::oid AND pronamespace = 'public'::regnamespace;
DELETE FROM pg_operator WHERE oid > 3000000000::oid;
