/*
 * The layout of struct smfiDesc, which is part of the binary interface, on systems with 64-bit pointers.
 */
#include <libmilter/mfapi.h>
#include <stddef.h>

#define AT(member, offset) \
    _Static_assert(offsetof(struct smfiDesc, member) == (offset), #member " is not at " #offset)

AT(xxfi_name, 0);
AT(xxfi_version, 8);
AT(xxfi_flags, 16);
AT(xxfi_connect, 24);
AT(xxfi_helo, 32);
AT(xxfi_envfrom, 40);
AT(xxfi_envrcpt, 48);
AT(xxfi_header, 56);
AT(xxfi_eoh, 64);
AT(xxfi_body, 72);
AT(xxfi_eom, 80);
AT(xxfi_abort, 88);
AT(xxfi_close, 96);
AT(xxfi_unknown, 104);
AT(xxfi_data, 112);
AT(xxfi_negotiate, 120);
_Static_assert(sizeof(struct smfiDesc) == 128, "struct smfiDesc has not 128 octets");
_Static_assert(sizeof(sfsistat) == sizeof(int), "sfsistat is not int");
