/*
 * metrics.h
 *		What Prometheus and probes want to know, from shared memory alone.
 */
#ifndef MSGSYS_METRICS_H
#define MSGSYS_METRICS_H

#include "msgsys.h"

#include "call.h"
#include "rest_catalog.h"

/* What a path is for, as a label: there are as many paths as clients like. */
typedef enum Route
{
	ROUTE_TABLE,
	ROUTE_RPC,
	ROUTE_API,					/* the description of the interface, and its page */
	ROUTE_UI,
	ROUTE_COMPAT,
	ROUTE_METRICS,
	ROUTE_HEALTH,
	ROUTE_OTHER,
	ROUTE_COUNT
} Route;

/* Room in shared memory. */
extern Size metrics_size(void);
extern void metrics_init(void);

/* Count a request that was answered. */
extern void metrics_request(Route route, CallMethod method, int status, int64 microseconds);

/* Take a sample of the backlog if one is due; in no transaction. */
extern void metrics_sample(void);

/* Answer /metrics, /health/live and /health/ready. */
extern void metrics_answer(Call *call);
extern void health_answer(Call *call, bool ready);

#endif							/* MSGSYS_METRICS_H */
