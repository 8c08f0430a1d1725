/*
 * cron.h
 *		The end of pg_cron's jobs, when the extension is dropped.
 */
#ifndef MSGSYS_CRON_H
#define MSGSYS_CRON_H

extern void cron_drop_jobs(void);

#endif							/* MSGSYS_CRON_H */
