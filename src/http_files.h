/*
 * http_files.h
 *		The pages that are installed with the extension, as replies.
 */
#ifndef MSGSYS_HTTP_FILES_H
#define MSGSYS_HTTP_FILES_H

#include "msgsys.h"

#include "call.h"

/* Answer with a file of a directory of the pages ("ui", "docs"); name "" is its index.html.  Refuses what is not there. */
extern void http_files_answer(Call *call, const char *directory, const char *name);

#endif							/* MSGSYS_HTTP_FILES_H */
