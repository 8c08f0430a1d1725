/*
 * sql.c
 *		Fuzzes the SQL that queries by HTTP become (src/rest_parse.c, src/rest_sql.c).
 *
 * Whatever the query is, PostgreSQL's parser reads the text as one SELECT of one table, whose expressions are
 * columns of it, constants, parameters and the few functions that are meant.
 */
#include "backend.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"

#include "rest_error.h"
#include "rest_sql.h"

extern int	fuzz_sql(const uint8_t *data, size_t size);

typedef struct Statement
{
	RestQuery  *query;
	int			nparameters;
	int			ntables;
} Statement;

static const RestColumn columns[] = {
	{.name = "id",.quoted = "id",.type = INT8OID,.base_type = INT8OID},
	{.name = "channel",.quoted = "channel",.type = TEXTOID,.base_type = TEXTOID},
	{.name = "payload",.quoted = "payload",.type = JSONBOID,.base_type = JSONBOID},
	{.name = "at",.quoted = "at",.type = TIMESTAMPTZOID,.base_type = TIMESTAMPTZOID},
	{.name = "tags",.quoted = "tags",.type = TEXTARRAYOID,.base_type = TEXTARRAYOID},
	{.name = "a \"b",.quoted = "\"a \"\"b\"",.type = BOOLOID,.base_type = BOOLOID},
};

static const RestSource source = {"things", "s", columns, lengthof(columns)};

static void
check_function(const FuncCall *call)
{
	static const char *const names[] = {"to_jsonb", "to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery"};
	bool		known = false;

	PROPERTY(list_length(call->funcname) == 2 && strcmp(strVal(linitial(call->funcname)), "pg_catalog") == 0);
	for (int i = 0; i < lengthof(names); i++)
		known |= strcmp(strVal(lsecond(call->funcname)), names[i]) == 0;
	PROPERTY(known);
}

static void
check_column(const ColumnRef *column)
{
	bool		known = false;

	PROPERTY(list_length(column->fields) == 2 && strcmp(strVal(linitial(column->fields)), "t") == 0);
	if (IsA(lsecond(column->fields), A_Star))
		return;
	for (int i = 0; i < lengthof(columns); i++)
		known |= strcmp(strVal(lsecond(column->fields)), columns[i].name) == 0;
	PROPERTY(known);
}

static bool
check_node(Node *node, void *arg)
{
	Statement  *statement = arg;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FuncCall:
			check_function((FuncCall *) node);
			break;
		case T_ColumnRef:
			check_column((ColumnRef *) node);
			return false;
		case T_ParamRef:
			PROPERTY(((ParamRef *) node)->number >= 1 && ((ParamRef *) node)->number <= statement->nparameters);
			break;
		case T_RangeVar:
			PROPERTY(strcmp(((RangeVar *) node)->relname, "things") == 0);
			statement->ntables++;
			break;
		case T_TypeName:
			return false;
		case T_List:
		case T_SelectStmt:
		case T_ResTarget:
		case T_A_Expr:
		case T_A_Const:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_TypeCast:
		case T_SortBy:
		case T_Alias:
			break;
		default:
			dprintf(2, "node %d\n", (int) nodeTag(node));
			PROPERTY(!"another kind of node");
	}
	return raw_expression_tree_walker(node, check_node, statement);
}

/* How many items a list has that are linked by "next". */
#define COUNT(type, first, n) for (const type *item_ = (first); item_; item_ = item_->next) (n)++

static void
make(void *arg)
{
	Statement  *statement = arg;
	const RestQuery *query = statement->query;
	RestSql		sql;
	List	   *parsed;
	SelectStmt *select;
	int			nselected = 0;
	int			nordered = 0;

	rest_sql_init(&sql);
	appendStringInfoString(&sql.text, "SELECT ");
	rest_sql_select(&sql, &source, query->select, false);
	appendStringInfoString(&sql.text, " FROM things t");
	rest_sql_where(&sql, &source, query->filters);
	rest_sql_order(&sql, &source, query->order);
	statement->nparameters = sql.nparameters;

	parsed = raw_parser(sql.text.data, RAW_PARSE_DEFAULT);
	PROPERTY(list_length(parsed) == 1);
	select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	PROPERTY(IsA(select, SelectStmt) && select->op == SETOP_NONE && select->withClause == NULL && select->intoClause == NULL);
	COUNT(RestSelect, query->select, nselected);
	COUNT(RestOrder, query->order, nordered);
	PROPERTY(list_length(select->targetList) == Max(nselected, 1) && list_length(select->sortClause) == nordered);
	PROPERTY((select->whereClause == NULL) == (query->filters == NULL));
	check_node((Node *) select, statement);
	PROPERTY(statement->ntables == 1);
}

int
fuzz_sql(const uint8_t *data, size_t size)
{
	char	   *text = fuzz_copy(data, size);
	RestParseError failure;
	Statement	statement = {0};
	const char *decoded = url_decode(text, strlen(text), false, palloc);
	ErrorData  *error;

	/* as read_target() of facade.c sees to it */
	if (pg_verifymbstr(decoded, strlen(decoded), true))
		statement.query = rest_parse(text, false, palloc, &failure);
	rest_error_reset();
	if (statement.query)
	{
		error = fuzz_try(make, &statement);
		/* what is wrong is wrong with the query, and not with the text that we make of it */
		PROPERTY(error == NULL || error->sqlerrcode != ERRCODE_SYNTAX_ERROR || statement.nparameters == 0);
	}
	rest_error_reset();
	(free) (text);
	return 0;
}
