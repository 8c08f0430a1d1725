/*
 * suspect.h
 *		Whose fault it is that something fails: the row's, or that of all.
 *
 * No error's code tells.  What fails alone three times while others pass is data, and is
 * set aside.  What fails while nothing else passes may be the environment: it waits.  Where
 * there is nothing else, it is data once it has failed five times more, if a trivial write to another
 * table passes then, and if its error is none of those that say that the server lacks something.
 */
#ifndef MSGSYS_SUSPECT_H
#define MSGSYS_SUSPECT_H

#include "msgsys.h"

#define STRIKES			3		/* while others pass */
#define STRIKES_ALONE	5		/* while there is nobody else */

/* A suspect has failed once more.  Returns whether that is its own fault. */
static inline bool
strike(int *failures, bool others_pass)
{
	*failures += others_pass;
	return *failures >= STRIKES;
}

#endif							/* MSGSYS_SUSPECT_H */
