/*
 * memcheck.h
 *		Stands for valgrind's header of this name where a PostgreSQL is built with
 *		AddressSanitizer (test/tools/own-server): what PostgreSQL tells valgrind of its memory
 *		contexts and buffers (utils/memdebug.h), it then tells AddressSanitizer, which knows
 *		malloc() alone otherwise.
 */
#ifndef MSGSYS_ASAN_MEMCHECK_H
#define MSGSYS_ASAN_MEMCHECK_H

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_NOACCESS(addr, size)	__asan_poison_memory_region((void *) (addr), size)
#define VALGRIND_MAKE_MEM_DEFINED(addr, size)	__asan_unpoison_memory_region((void *) (addr), size)
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) __asan_unpoison_memory_region((void *) (addr), size)

#define VALGRIND_MEMPOOL_ALLOC(context, addr, size) __asan_unpoison_memory_region(addr, size)
#define VALGRIND_MEMPOOL_CHANGE(context, old, new, size) __asan_unpoison_memory_region(new, size)

/* wipe_mem() has done it */
#define VALGRIND_MEMPOOL_FREE(context, addr)	((void) 0)
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed) ((void) 0)
#define VALGRIND_DESTROY_MEMPOOL(context)		((void) 0)

/* It does not know which memory is defined. */
#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size) ((void) 0)

/* from 16 on */
#define VALGRIND_COUNT_ERRORS					0
#define VALGRIND_PRINTF(...)					((void) 0)
#define VALGRIND_DISABLE_ERROR_REPORTING		((void) 0)
#define VALGRIND_ENABLE_ERROR_REPORTING			((void) 0)
#define VALGRIND_MEMPOOL_TRIM(context, addr, size) ((void) 0)

#endif							/* MSGSYS_ASAN_MEMCHECK_H */
