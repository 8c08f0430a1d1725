/*
 * jwt_keys.h
 *		Public keys whose private ones nobody has kept.
 */
#ifndef JWT_KEYS_H
#define JWT_KEYS_H

#define RSA_KEY \
	"-----BEGIN PUBLIC KEY-----\n" \
	"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAp2SLXq5B0M6UCrqo+3rT\n" \
	"Nv6QJURKAzYYaLcRfTKty12JCp7juPc/ySPnvnyfDRLOYzLEN9EQ1RTrbGp+Vsu2\n" \
	"nwhORXH9CgWLigDr8A03GND8pzxVVZW1HvLQz1PXK5nTAnFefYhTOP2wz+xTtVoD\n" \
	"B0TbNS+YaRLyiaXAe45LEG77gq//zDYBiofvAmukQ8zajbod0GDRbHUpLMpaZzDu\n" \
	"/8IqRiwT9Klq28tt/sMaBTgmo7n0A8Qr6IqtpDRDPpG+mQJG0FdlzJgiziBcpyF4\n" \
	"OF0isQEe5gv+/ki0VIQ9yOYhJms0/LTqtPmV8d8fN7UADeTpR74JlDEKR49Oz8Nm\n" \
	"BQIDAQAB\n" \
	"-----END PUBLIC KEY-----\n"

#define EC_KEY_P256 \
	"-----BEGIN PUBLIC KEY-----\n" \
	"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEk8E33OkJdRwjaScW/bVSeCzZcP7G\n" \
	"XSz1uCrh4yy0HkomftEa1s86/Cu/JwIiPuxJX/zOM7+Eri70V/BTZASpNQ==\n" \
	"-----END PUBLIC KEY-----\n"

#endif							/* JWT_KEYS_H */
