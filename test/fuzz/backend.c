/*
 * backend.c
 *		Runs fuzz targets within PostgreSQL, in single-user mode: its memory, errors, JSON, encodings,
 *		types and parser are the real ones.
 *
 * One library holds these targets and all of msgsys.  Each piece of memory that a target, or PostgreSQL
 * on its behalf, allocates is one of malloc() of exactly its size, so that AddressSanitizer sees
 * what goes beyond it; before PostgreSQL 16, where kinds of memory contexts can be added.
 */
#include "backend.h"

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "nodes/memnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "names.h"
#include "shmem.h"
#include "worker.h"

PG_FUNCTION_INFO_V1(fuzz);

static FuzzTarget target;
static MemoryContext memory;	/* of one input */

/* ---------- memory ---------- */

#if PG_VERSION_NUM < 160000

/* A piece of memory; who frees it looks for its context right before it. */
typedef struct Piece
{
	struct Piece *next;
	struct Piece *previous;
	Size		size;
	MemoryContext context;
} Piece;

typedef struct PieceContext
{
	MemoryContextData header;
	Piece		first;			/* of a ring */
} PieceContext;

static Size allocated;

static void *
piece_alloc(MemoryContext context, Size size)
{
	Piece	   *first = &((PieceContext *) context)->first;
	Piece	   *piece = malloc(sizeof(Piece) + size);

	if (piece == NULL)
		return NULL;
	allocated += size;
	piece->size = size;
	piece->context = context;
	piece->next = first->next;
	piece->previous = first;
	first->next->previous = piece;
	first->next = piece;
	return piece + 1;
}

static void
piece_free(MemoryContext context, void *pointer)
{
	Piece	   *piece = (Piece *) pointer - 1;

	piece->next->previous = piece->previous;
	piece->previous->next = piece->next;
	free(piece);
}

static void *
piece_realloc(MemoryContext context, void *pointer, Size size)
{
	void	   *moved = piece_alloc(context, size);

	if (moved)
	{
		memcpy(moved, pointer, Min(size, ((Piece *) pointer - 1)->size));
		piece_free(context, pointer);
	}
	return moved;
}

static void
piece_reset(MemoryContext context)
{
	Piece	   *first = &((PieceContext *) context)->first;

	while (first->next != first)
		piece_free(context, first->next + 1);
}

static void
piece_delete(MemoryContext context)
{
	piece_reset(context);
	free(context);
}

static Size
piece_space(MemoryContext context, void *pointer)
{
	return ((Piece *) pointer - 1)->size + sizeof(Piece);
}

static bool
piece_is_empty(MemoryContext context)
{
	return ((PieceContext *) context)->first.next == &((PieceContext *) context)->first;
}

static void
piece_stats(MemoryContext context, MemoryStatsPrintFunc printfunc, void *passthru, MemoryContextCounters *totals, bool print_to_stderr)
{
}

static const MemoryContextMethods piece_methods = {
	.alloc = piece_alloc,
	.free_p = piece_free,
	.realloc = piece_realloc,
	.reset = piece_reset,
	.delete_context = piece_delete,
	.get_chunk_space = piece_space,
	.is_empty = piece_is_empty,
	.stats = piece_stats
};

static MemoryContext
make_memory(void)
{
	PieceContext *context = calloc(1, sizeof(PieceContext));

	if (context == NULL)
		elog(ERROR, "out of memory");
	context->first.next = context->first.previous = &context->first;
	/* it has to call itself one that is known */
	MemoryContextCreate((MemoryContext) context, T_AllocSetContext, &piece_methods, TopMemoryContext, "fuzz");
	return (MemoryContext) context;
}

size_t
fuzz_allocated(void)
{
	return allocated;
}

static void
reset_memory(void)
{
	MemoryContextReset(memory);
	allocated = 0;
}

#else

static MemoryContext
make_memory(void)
{
	return AllocSetContextCreate(TopMemoryContext, "fuzz", ALLOCSET_DEFAULT_SIZES);
}

size_t
fuzz_allocated(void)
{
	return 0;
}

static void
reset_memory(void)
{
	MemoryContextReset(memory);
}

#endif

/* ---------- what targets use ---------- */

ErrorData *
fuzz_try(void (*run) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		run(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error && (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTERNAL_ERROR || error->elevel > ERROR))
	{
		dprintf(2, "ERROR: %s (%s:%d)\n", error->message, error->filename, error->lineno);
		PROPERTY(!"an internal error");
	}
	return error;
}

bool
fuzz_presentable(const char *text, size_t most)
{
	return strlen(text) <= most && pg_verifymbstr(text, strlen(text), true);
}

Call *
fuzz_call(FuzzInput *input, const char *body, size_t length)
{
	Call	   *call = palloc0(sizeof(Call));
	HttpExchange *http = palloc0(sizeof(HttpExchange));
	HttpField  *fields = palloc(sizeof(HttpField) * 128);

	while (input->at < input->end && http->nfields < 128)
	{
		char	   *line = fuzz_line(input);
		char	   *colon = strchr(line, ':');

		/* an empty line ends them */
		if (*line == '\0')
		{
			(free) (line);
			break;
		}
		if (colon)
		{
			/* as libmicrohttpd hands them out: no blanks around a value, no control characters (http_server.c) */
			fields[http->nfields].name = pnstrdup(line, colon - line);
			colon += 1 + strspn(colon + 1, " \t");
			for (char *c = colon; *c; c++)
				if ((unsigned char) *c < ' ' && *c != '\t')
					*c = ' ';
			fields[http->nfields++].value = pstrdup(colon);
		}
		(free) (line);
	}
	http->fields = fields;
	http->method = "GET";
	http->target = "/messages";
	http->peer = "127.0.0.1";
	http->body = body;
	http->body_length = length;
	call->http = http;
	call->context = CurrentMemoryContext;
	initStringInfo(&call->body);
	return call;
}

/* In place of those of shmem.c: there is no worker here. */
void
slot_error(const char *error)
{
}

void
slot_error_over(const char *error)
{
}

/* ---------- the function ---------- */

static void
run_target(void *arg)
{
	FuzzInput  *input = arg;

	target(input->at, (size_t) (input->end - input->at));
}

/* One input; an error that a target does not expect is none of its findings, but an internal one. */
static int
run_one(const uint8_t *data, size_t size)
{
	MemoryContext old = MemoryContextSwitchTo(memory);
	FuzzInput	input = fuzz_input(data, size);

	(void) fuzz_try(run_target, &input);
	MemoryContextSwitchTo(old);
	reset_memory();
	return 0;
}

#ifdef FUZZING
extern int	LLVMFuzzerRunDriver(int *argc, char ***argv, FuzzTarget run);

/* libFuzzer ends the process; the server has nothing to put in order. */
static void
leave(int status, void *arg)
{
	fflush(NULL);
	_exit(status);
}
#endif

/*
 * fuzz(target text, arguments text[]) returns void
 * Run libFuzzer, where it is there, by a command line: what starts it again, and its options.  Else replay a folder, the
 * second argument.
 */
Datum
fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *values;
	int			n;
	char	  **arguments;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	arguments = palloc0(sizeof(char *) * (n + 1));
	for (int i = 0; i < n; i++)
		arguments[i] = TextDatumGetCString(values[i]);
	target = (FuzzTarget) dlsym(RTLD_DEFAULT, psprintf("fuzz_%s", name));
	if (target == NULL)
		elog(ERROR, "there is no target %s", name);
	if (memory == NULL)
		memory = make_memory();
	fuzz_names();
	strlcpy(installation.uuid, FUZZ_UUID, sizeof(installation.uuid));
	installation.epoch = FUZZ_EPOCH;
#ifdef FUZZING
	on_exit(leave, NULL);
	LLVMFuzzerRunDriver(&n, &arguments, run_one);
#else
	fuzz_replay(name, arguments[1], run_one);
#endif
	PG_RETURN_VOID();
}
