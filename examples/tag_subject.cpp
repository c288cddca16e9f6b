/*
 * tag_subject - a filter in C++: puts a tag in front of the subject of mail from clients that have not authenticated.
 * Exceptions end at the callback, and a destructor frees what a session owns.
 *
 *   c++ tag_subject.cpp -o tag_subject $(pkg-config --cflags --libs milter)
 *   ./tag_subject unix:/tmp/tag_subject.sock "[external]" &
 *   milter-probe send --connect unix:/tmp/tag_subject.sock message.eml
 */

#include <exception>
#include <string>
#include <strings.h>
#include <syslog.h>

#include <libmilter/mfapi.h>

namespace {

std::string tag;

class Session {
public:
	sfsistat mail(SMFICTX *ctx, char **)
	{
		subject.clear();
		char user[] = "{auth_authen}";
		return smfi_getsymval(ctx, user) == NULL ? SMFIS_CONTINUE : SMFIS_ACCEPT;
	}

	sfsistat header(SMFICTX *, char *name, char *value)
	{
		if (subject.empty() && strcasecmp(name, "Subject") == 0)
			subject = value;
		return SMFIS_CONTINUE;
	}

	sfsistat end(SMFICTX *ctx)
	{
		if (subject.compare(0, tag.size(), tag) == 0)
			return SMFIS_CONTINUE;
		std::string tagged = tag + " " + subject;
		char name[] = "Subject";
		// The first subject is number 1; where there is none, one is added.
		return smfi_chgheader(ctx, name, 1, &tagged[0]) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
	}

private:
	std::string subject;
};

// A callback of the C interface that runs a member function; the first one of a session makes the session.
template <typename... Arguments> struct Callback {
	template <sfsistat (Session::*step)(SMFICTX *, Arguments...)>
	static sfsistat run(SMFICTX *ctx, Arguments... arguments)
	{
		try {
			Session *session = static_cast<Session *>(smfi_getpriv(ctx));
			if (session == NULL)
				smfi_setpriv(ctx, session = new Session);
			return (session->*step)(ctx, arguments...);
		} catch (const std::exception &error) {
			// The library cannot carry an exception to anywhere: it would end the process.
			syslog(LOG_ERR, "%s", error.what());
			return SMFIS_TEMPFAIL;
		}
	}
};

sfsistat close_session(SMFICTX *ctx)
{
	delete static_cast<Session *>(smfi_getpriv(ctx));
	smfi_setpriv(ctx, NULL);
	return SMFIS_CONTINUE;
}

} // namespace

int main(int argc, char **argv)
{
	struct smfiDesc filter = smfiDesc();
	char name[] = "tag_subject";
	filter.xxfi_name = name;
	filter.xxfi_version = SMFI_VERSION;
	filter.xxfi_flags = SMFIF_CHGHDRS;
	filter.xxfi_envfrom = Callback<char **>::run<&Session::mail>;
	filter.xxfi_header = Callback<char *, char *>::run<&Session::header>;
	filter.xxfi_eom = Callback<>::run<&Session::end>;
	filter.xxfi_close = close_session;

	openlog(name, LOG_PERROR, LOG_MAIL);
	if (argc != 3)
		syslog(LOG_ERR, "usage: tag_subject SOCKET TAG");
	else
		tag = argv[2];
	return argc == 3 && smfi_register(filter) == MI_SUCCESS && smfi_setconn(argv[1]) == MI_SUCCESS &&
	    smfi_opensocket(true) == MI_SUCCESS && smfi_main() == MI_SUCCESS ? 0 : 1;
}
