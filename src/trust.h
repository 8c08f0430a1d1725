/*
 * trust.h
 *		Whom TLS trusts where no setting says otherwise.
 */
#ifndef MSGSYS_TRUST_H
#define MSGSYS_TRUST_H

#define SYSTEM_CA_FILE	"/etc/ssl/certs/ca-certificates.crt"

#endif							/* MSGSYS_TRUST_H */
