/*
 * worker.h
 *		What the workers of all stages do: start, wait, run transactions.
 */
#ifndef MSGSYS_WORKER_H
#define MSGSYS_WORKER_H

#include "msgsys.h"

#include "datatype/timestamp.h"

#include "broker.h"
#include "reactor.h"

/* The extension in this worker's database, as of the transaction under way. */
typedef struct Installation
{
	Oid			extension;
	Oid			schema_oid;
	char		schema[NAMEDATALEN * 2 + 4];	/* quoted */
	char		uuid[37];		/* of the current epoch */
	int32		epoch;			/* that of new messages; 0: a standby has none */
	bool		copy;			/* not adopted: nothing may be sent */
} Installation;

extern Installation installation;

/* Memory that lives until the next worker_cycle(). */
extern MemoryContext cycle_context;

extern bool worker_cycle(void);
extern bool worker_begin(void);
extern void worker_commit(void);
extern bool worker_try(void (*work) (void *arg), void *arg);
extern bool worker_try_any(void (*work) (void *arg), void *arg, ErrorData **error);
extern bool error_is_of_locks(const ErrorData *error);
extern bool error_is_of_server(const ErrorData *error);
extern bool worker_subtry(void (*work) (void *arg), void *arg, ErrorData **error);
extern bool worker_refresh(bool *reloaded);
extern bool worker_config_changed(void);
extern void worker_wait(long timeout_ms);
extern void worker_rest(long timeout_ms);
extern bool worker_stopping(void);
extern void worker_stop(void);
extern void worker_want_sweep(void);
extern long worker_sweep_in(void);
extern void worker_sweep(void (*look) (void));
extern Reactor *worker_reactor(void);
extern void worker_broker_log(Broker *broker);
extern Broker *worker_open_broker(BrokerRole role);
extern void worker_close_broker(Broker **broker);
extern bool worker_broker_settings_changed(void);

#endif							/* MSGSYS_WORKER_H */
