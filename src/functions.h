/*
 * functions.h
 *		What the SQL functions in C share.
 */
#ifndef MSGSYS_FUNCTIONS_H
#define MSGSYS_FUNCTIONS_H

#include "fmgr.h"

extern const char *own_schema(FunctionCallInfo fcinfo);

#endif							/* MSGSYS_FUNCTIONS_H */
