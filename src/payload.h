/*
 * payload.h
 *		How long the text of a payload is, without making it.
 */
#ifndef MSGSYS_PAYLOAD_H
#define MSGSYS_PAYLOAD_H

#include "msgsys.h"

#include "utils/jsonb.h"

extern size_t payload_text_size(Jsonb *payload);
extern bool payload_fits(Jsonb *payload, size_t most);

#endif							/* MSGSYS_PAYLOAD_H */
