/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-uri: what a URI says of an NBD export, without asking anybody.
 *
 *     nbd://[user@]host[:port]/[export]           nbds://  the same with TLS
 *     nbd+unix:///[export]?socket=PATH            nbds+unix://
 *     nbd+vsock://[cid][:port]/[export]           nbds+vsock://
 *
 * libnbd decides in the end what it takes; here a URI is prepared for it.
 */
#ifndef REMAP_NBD_URI_H
#define REMAP_NBD_URI_H

#include <stdbool.h>
#include <stddef.h>

/* Is this meant to be a URI, and no path?  libnbd judges which scheme. */
extern bool nbd_uri_is_one (const char *text);

/* May a name that somebody gave, a path or a URI, stand in messages?  -1: not a
 * URI with a password, or what may be one; the error does not repeat it.  To be
 * asked wherever names come in, before all else.
 */
extern int nbd_uri_check_secrets (const char *name);

/* The same URI with the paths in it (socket=, tls-psk-file=,
 * tls-certificates=) made absolute: a server that becomes a daemon changes its
 * folder.  To free.  NULL with the error set: EINVAL where it has a password
 * (which the text does not repeat) or an unknown scheme.
 */
extern char *nbd_uri_absolute (const char *uri);

/* What tells the export from others, fit to be a file name:
 * "nbd-HOST-PORT-EXPORT-CHECKSUM".  User and TLS play no part in it, nor do
 * upper and lower case of the host, nor links in the path of the socket's folder.
 * Names are not looked up: localhost is not 127.0.0.1.  uri has been made
 * absolute.
 */
extern void nbd_uri_id (const char *uri, char *ret, size_t size);

#endif /* REMAP_NBD_URI_H */
