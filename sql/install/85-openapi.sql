-- 85-openapi.sql: the description of the HTTP interface, as OpenAPI.

/* msg_openapi_type(type): a type of PostgreSQL as a schema of OpenAPI. */
CREATE FUNCTION @extschema@.msg_openapi_type(type oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE
	WHEN t.typelem <> 0 AND t.typlen = -1 THEN jsonb_build_object('type', 'array', 'items', @extschema@.msg_openapi_type(t.typelem))
	WHEN t.typtype = 'e' THEN jsonb_build_object('type', 'string', 'enum', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
	WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN '{}'
	WHEN t.oid = 'int8'::regtype THEN '{"type": "integer", "format": "int64"}'
	WHEN t.oid IN ('int2'::regtype, 'int4'::regtype) THEN '{"type": "integer", "format": "int32"}'
	WHEN t.oid IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) THEN '{"type": "number"}'
	WHEN t.oid = 'bool'::regtype THEN '{"type": "boolean"}'
	WHEN t.oid IN ('timestamptz'::regtype, 'timestamp'::regtype) THEN '{"type": "string", "format": "date-time"}'
	WHEN t.oid = 'uuid'::regtype THEN '{"type": "string", "format": "uuid"}'
	WHEN t.typtype = 'c' AND t.typrelid <> 0 THEN jsonb_build_object('$ref', '#/components/schemas/' || t.typname)
	ELSE '{"type": "string"}'
END
FROM pg_type t WHERE t.oid = type
$$;
COMMENT ON FUNCTION @extschema@.msg_openapi_type IS 'a type as a schema of OpenAPI';

/*
 * msg_openapi(): what the HTTP facade serves, as OpenAPI 3.1, from the catalogue and its comments; under webhooks what msgsys sends.
 */
CREATE FUNCTION @extschema@.msg_openapi() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
WITH extension AS (
	SELECT e.oid, e.extversion FROM pg_extension e WHERE e.extname = 'msgsys'
), tables AS (
	SELECT c.oid, c.relname AS name, c.reltype, obj_description(c.oid, 'pg_class') AS about,
		(pg_relation_is_updatable(c.oid, false) & 8) <> 0 AS insertable, (pg_relation_is_updatable(c.oid, false) & 20) = 20 AS updatable
	FROM extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
	JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'msg_webhook_secrets'
), columns AS (
	SELECT t.name AS table_name, a.attname AS name, a.attnum, @extschema@.msg_openapi_type(a.atttypid) AS type, col_description(t.oid, a.attnum) AS about
	FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
), functions AS (
	SELECT p.oid, p.proname AS name, p.provolatile <> 'v' AS reads, p.proretset, p.prorettype, obj_description(p.oid, 'pg_proc') AS about,
		p.pronargs, p.pronargdefaults, p.proargnames, p.proargmodes, p.proargtypes, p.proallargtypes
	FROM extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
	-- not what stands behind other systems' routes, which nobody calls by its name
	JOIN pg_proc p ON p.oid = d.objid AND p.prokind = 'f' AND p.proname LIKE 'msg\_%' AND p.proname NOT LIKE 'msg\_http\_%'
		AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype)
), parameters AS (
	SELECT f.oid, a.name, a.n, @extschema@.msg_openapi_type(a.type) AS type, a.n <= f.pronargs - f.pronargdefaults AS required
	FROM functions f, unnest(f.proargtypes::oid[], f.proargnames) WITH ORDINALITY a(type, name, n) WHERE a.n <= f.pronargs
), results AS (
	SELECT f.oid, CASE WHEN f.proretset THEN jsonb_build_object('type', 'array', 'items', r.one) ELSE r.one END AS schema
	FROM functions f, LATERAL (SELECT CASE WHEN f.prorettype = 'record'::regtype THEN jsonb_build_object('type', 'object', 'properties',
			(SELECT jsonb_object_agg(o.name, @extschema@.msg_openapi_type(o.type)) FROM unnest(f.proallargtypes, f.proargnames, f.proargmodes) o(type, name, mode) WHERE o.mode IN ('o', 'b', 't')))
		ELSE @extschema@.msg_openapi_type(f.prorettype) END AS one) r
), answers AS (
	SELECT '{"401": {"$ref": "#/components/responses/error"}, "403": {"$ref": "#/components/responses/error"}, "404": {"$ref": "#/components/responses/error"},
		"400": {"$ref": "#/components/responses/error"}, "503": {"$ref": "#/components/responses/error"}}'::jsonb AS errors
), paths AS (
	SELECT '/' || t.name AS path, jsonb_strip_nulls(jsonb_build_object(
		'get', jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'read_' || t.name, 'summary', t.about,
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'description', coalesce(c.about, c.name) || ' (a filter: operator.value)', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum)
				FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/select"}, {"$ref": "#/components/parameters/order"}, {"$ref": "#/components/parameters/limit"},
				{"$ref": "#/components/parameters/offset"}, {"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'responses', a.errors || jsonb_build_object('200', jsonb_build_object('description', 'rows', 'content', jsonb_build_object('application/json', jsonb_build_object('schema',
				jsonb_build_object('type', 'array', 'items', jsonb_build_object('$ref', '#/components/schemas/' || t.name)))))) || '{"206": {"description": "a part of the rows that were counted"}, "406": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'),
		'post', CASE WHEN t.insertable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'insert_' || t.name, 'summary', 'insert rows',
			'parameters', '[{"$ref": "#/components/parameters/select"}, {"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_build_object('anyOf', jsonb_build_array(
				jsonb_build_object('$ref', '#/components/schemas/' || t.name), jsonb_build_object('type', 'array', 'items', jsonb_build_object('$ref', '#/components/schemas/' || t.name))))))),
			'responses', a.errors || '{"201": {"description": "inserted"}, "200": {"description": "merged"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "413": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END,
		'patch', CASE WHEN t.updatable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'change_' || t.name, 'summary', 'change the rows of a filter',
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum) FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_build_object('$ref', '#/components/schemas/' || t.name)))),
			'responses', a.errors || '{"204": {"description": "changed"}, "200": {"description": "changed, shown"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END,
		'delete', CASE WHEN t.updatable THEN jsonb_build_object('tags', jsonb_build_array('tables'), 'operationId', 'delete_' || t.name, 'summary', 'delete the rows of a filter',
			'parameters', (SELECT jsonb_agg(jsonb_build_object('name', c.name, 'in', 'query', 'schema', '{"type": "string"}'::jsonb) ORDER BY c.attnum) FROM columns c WHERE c.table_name = t.name) || '[{"$ref": "#/components/parameters/prefer"}]'::jsonb,
			'responses', a.errors || '{"204": {"description": "deleted"}, "200": {"description": "deleted, shown"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END)) AS item
	FROM tables t, answers a
	UNION ALL
	SELECT '/rpc/' || f.name, jsonb_strip_nulls(jsonb_build_object(
		'post', jsonb_build_object('tags', jsonb_build_array('functions'), 'operationId', f.name, 'summary', f.about,
			'requestBody', jsonb_build_object('required', true, 'content', jsonb_build_object('application/json', jsonb_build_object('schema', jsonb_strip_nulls(jsonb_build_object('type', 'object',
				'properties', coalesce((SELECT jsonb_object_agg(p.name, p.type) FROM parameters p WHERE p.oid = f.oid), '{}'),
				'required', (SELECT jsonb_agg(p.name ORDER BY p.n) FROM parameters p WHERE p.oid = f.oid AND p.required)))))),
			'responses', a.errors || CASE WHEN f.prorettype = 'void'::regtype THEN '{"204": {"description": "done"}}'::jsonb
				ELSE jsonb_build_object('200', jsonb_build_object('description', 'the result', 'content', jsonb_build_object('application/json', jsonb_build_object('schema', r.schema)))) END
				|| '{"206": {"description": "a part of the rows that were counted"}, "405": {"$ref": "#/components/responses/error"}, "406": {"$ref": "#/components/responses/error"}, "409": {"$ref": "#/components/responses/error"}, "413": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb),
		'get', CASE WHEN f.reads THEN jsonb_build_object('tags', jsonb_build_array('functions'), 'operationId', 'get_' || f.name, 'summary', f.about,
			'parameters', coalesce((SELECT jsonb_agg(jsonb_build_object('name', p.name, 'in', 'query', 'required', p.required, 'schema', '{"type": "string"}'::jsonb) ORDER BY p.n)
				FROM parameters p WHERE p.oid = f.oid AND p.name NOT IN ('limit', 'offset')), '[]') || '[{"$ref": "#/components/parameters/limit"}, {"$ref": "#/components/parameters/offset"}]'::jsonb,
			'responses', a.errors || jsonb_build_object('200', jsonb_build_object('description', 'the result', 'content', jsonb_build_object('application/json', jsonb_build_object('schema', r.schema))))
				|| '{"206": {"description": "a part of the rows that were counted"}, "406": {"$ref": "#/components/responses/error"}, "416": {"$ref": "#/components/responses/error"}}'::jsonb) END))
	FROM functions f JOIN results r ON r.oid = f.oid, answers a
	UNION ALL
	VALUES
		('/health/live', '{"get": {"tags": ["operation"], "operationId": "live", "summary": "whether the HTTP worker answers", "security": [], "responses": {"200": {"description": "it does"}}}}'::jsonb),
		('/health/ready', '{"get": {"tags": ["operation"], "operationId": "ready", "summary": "whether all workers can do their work", "security": [], "responses": {"200": {"description": "they can"}, "503": {"description": "one cannot; the body says which"}}}}'),
		('/metrics', '{"get": {"tags": ["operation"], "operationId": "metrics", "summary": "metrics in the text format of Prometheus", "security": [], "responses": {"200": {"description": "metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}}}}')
)
SELECT jsonb_build_object(
	'openapi', '3.1.0',
	'info', jsonb_build_object('title', 'msgsys', 'version', (SELECT extversion FROM extension), 'license', '{"name": "PostgreSQL", "identifier": "PostgreSQL"}'::jsonb,
		'description', 'Tables, views and functions of msgsys in the dialect of PostgREST.'),
	'servers', '[{"url": "/"}]'::jsonb,
	'tags', '[{"name": "tables", "description": "tables and views"}, {"name": "functions", "description": "functions, with named arguments"}, {"name": "operation", "description": "probes and metrics"}]'::jsonb,
	'security', '[{"bearer": []}]'::jsonb,
	'paths', (SELECT jsonb_object_agg(path, item) FROM paths),
	'webhooks', '{"message": {"post": {"operationId": "message", "summary": "a message, as a channel''s webhook gets it; any 2xx takes it", "security": [], "parameters": [
		{"name": "webhook-id", "in": "header", "required": true, "schema": {"type": "string"}, "description": "the same at each attempt"},
		{"name": "webhook-timestamp", "in": "header", "required": true, "schema": {"type": "integer"}},
		{"name": "webhook-signature", "in": "header", "schema": {"type": "string"}, "description": "Standard Webhooks 1.0"}],
		"requestBody": {"content": {"application/json": {"schema": {}}}}, "responses": {"2XX": {"description": "delivered"}, "410": {"description": "disables the webhook"}, "default": {"description": "tried again, or dead"}}}}}'::jsonb,
	'components', jsonb_build_object(
		'securitySchemes', '{"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}'::jsonb,
		'responses', '{"error": {"description": "why not", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}}}'::jsonb,
		'parameters', '{"select": {"name": "select", "in": "query", "schema": {"type": "string"}, "description": "columns, as alias:column->path::type"},
			"order": {"name": "order", "in": "query", "schema": {"type": "string"}, "description": "column.desc.nullslast, and more after commas"},
			"limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0}}, "offset": {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}},
			"prefer": {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "description": "count=exact, return=representation, resolution=merge-duplicates and so on"}}'::jsonb,
		'schemas', (SELECT jsonb_object_agg(c.table_name, jsonb_build_object('type', 'object', 'properties', c.properties)) FROM (
				SELECT c.table_name, jsonb_object_agg(c.name, CASE WHEN c.about IS NULL THEN c.type ELSE c.type || jsonb_build_object('description', c.about) END) AS properties FROM columns c GROUP BY c.table_name) c)
			|| '{"error": {"type": "object", "required": ["code", "message", "details", "hint"], "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "details": {"type": ["string", "null"]}, "hint": {"type": ["string", "null"]}}}}'::jsonb))
$$;
COMMENT ON FUNCTION @extschema@.msg_openapi IS 'what the HTTP facade serves, as OpenAPI 3.1';
