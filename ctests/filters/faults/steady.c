/*
 * Usage: steady SOCKET. A filter that allocates nothing once it serves, so that a lack of memory is the library's alone.
 * What the library gives to syslog goes to standard error: "SEVERITY TEXT".
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>
#include <libmilter/mfapi.h>

/* These take the place of the C library's for the shared objects, too (-rdynamic). */
void vsyslog(int priority, const char *format, va_list arguments)
{
	char text[1024];
	int length = snprintf(text, sizeof text, "%d ", priority & 7);

	length += vsnprintf(text + length, sizeof text - (size_t) length - 1, format, arguments);
	if (length > (int) sizeof text - 2)
		length = (int) sizeof text - 2;
	text[length] = '\n';
	if (write(2, text, (size_t) length + 1) < 0)
		_exit(1);
}

void syslog(int priority, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsyslog(priority, format, arguments);
	va_end(arguments);
}

void __syslog_chk(int priority, int flag, const char *format, ...);

void __syslog_chk(int priority, int flag, const char *format, ...)
{
	va_list arguments;

	(void) flag;
	va_start(arguments, format);
	vsyslog(priority, format, arguments);
	va_end(arguments);
}

static sfsistat on_helo(SMFICTX *context, char *name)
{
	(void) context;
	(void) name;
	return SMFIS_CONTINUE;
}

static sfsistat on_envelope(SMFICTX *context, char **arguments)
{
	(void) arguments;
	(void) smfi_getsymval(context, "i");
	return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *context, char *name, char *value)
{
	(void) context;
	(void) name;
	(void) value;
	return SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *context, unsigned char *data, size_t size)
{
	(void) context;
	(void) data;
	(void) size;
	return SMFIS_CONTINUE;
}

static sfsistat on_unknown(SMFICTX *context, const char *command)
{
	(void) context;
	(void) command;
	return SMFIS_CONTINUE;
}

static sfsistat on_eom(SMFICTX *context)
{
	return smfi_addheader(context, "X-Steady", "yes") == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

int main(int argc, char **argv)
{
	struct smfiDesc filter;

	memset(&filter, 0, sizeof filter);
	filter.xxfi_name = "steady";
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_flags = SMFIF_ADDHDRS;
	filter.xxfi_helo = on_helo;
	filter.xxfi_envfrom = on_envelope;
	filter.xxfi_envrcpt = on_envelope;
	filter.xxfi_header = on_header;
	filter.xxfi_body = on_body;
	filter.xxfi_unknown = on_unknown;
	filter.xxfi_eom = on_eom;
	if (argc != 2 || smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
		return 2;
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
