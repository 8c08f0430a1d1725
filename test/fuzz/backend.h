/*
 * backend.h
 *		What the fuzz targets share that run within PostgreSQL.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "msgsys.h"

#include "call.h"

#include "fuzz.h"

/* Run something that may raise an error; the error's copy, or NULL.  One that PostgreSQL calls internal is a finding. */
extern ErrorData *fuzz_try(void (*run) (void *arg), void *arg);

/* Whether a text is what the database can store: valid, and of at most so many bytes. */
extern bool fuzz_presentable(const char *text, size_t most);

/* A call by HTTP with "name: value" lines as its header, in the current memory. */
extern Call *fuzz_call(FuzzInput *input, const char *body, size_t length);

/* Bytes that were allocated for this input so far. */
extern size_t fuzz_allocated(void);

/* The names of this installation, as a worker knows them (names.c in ack.c). */
#define FUZZ_UUID		"01234567-89ab-cdef-0123-456789abcdef"
#define FUZZ_FOREIGN	"fedcba98-7654-3210-fedc-ba9876543210"
#define FUZZ_EPOCH		1

extern void fuzz_names(void);

#endif							/* BACKEND_H */
